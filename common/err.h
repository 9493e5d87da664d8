/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_COMMON_ERR_H
#define WD_COMMON_ERR_H
/*
 * An error on its way up: a code and one line of text.
 *
 * A function that touches the world (disk, network, configuration, another process) takes a last
 * argument `struct wd_err *err`, which lives on the stack of the caller that will end the error's
 * journey, and returns -errno. The first to see the fault sets it; each layer that can add meaning
 * wraps it once. `err` may be NULL: then only the code travels.
 *
 * Text: what was being done, the subject in quotes, the cause, what the user can do. Never a
 * secret.
 */

struct wd_err {
	int code; /* a positive errno value; 0 while nothing is wrong */
	char msg[512];
};

#define WD_ERR_INIT ((struct wd_err){0, ""})

/* Sets code (positive errno) and text; returns -code, so that `return wd_err_set(...)` reads well.
 */
int wd_err_set(struct wd_err *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Sets the text followed by ": " and strerror(code); returns -code. */
int wd_err_sys(struct wd_err *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Puts "text: " before what is there; returns -err->code. */
int wd_err_wrap(struct wd_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
