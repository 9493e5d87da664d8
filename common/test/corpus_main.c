/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main() of a fuzz target where there is no libFuzzer: runs every file of the folders given, in the
 * order of their names, as a regression test. Options (-x) are libFuzzer's and left alone, so that
 * both kinds of program take one command line. A crash names its input.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));

static int run_file(const char *path)
{
	FILE *f = fopen(path, "rbe");
	uint8_t *data = NULL;
	size_t size = 0, cap = 0;

	if (!f)
		return -1;
	while (!feof(f) && !ferror(f)) {
		if (size == cap) {
			cap = cap ? cap * 2 : 4096;
			data = realloc(data, cap);
			if (!data)
				abort();
		}
		size += fread(data + size, 1, cap - size, f);
	}
	fclose(f);
	/* exactly as large as its content, so that a sanitizer sees a read past it */
	data = realloc(data, size ? size : 1);
	if (!data)
		abort();
	fprintf(stderr, "%s\n", path);
	LLVMFuzzerTestOneInput(data, size);
	free(data);
	return 0;
}

static int run_folder(const char *folder)
{
	struct dirent **names;
	int n = scandir(folder, &names, NULL, alphasort), done = 0;

	for (int i = 0; i < n; i++) {
		char path[4096];

		snprintf(path, sizeof(path), "%s/%s", folder, names[i]->d_name);
		if (names[i]->d_name[0] != '.' && run_file(path) == 0)
			done++;
		free(names[i]);
	}
	if (n >= 0)
		free(names);
	return done;
}

int main(int argc, char **argv)
{
	int done = 0;

	if (LLVMFuzzerInitialize)
		LLVMFuzzerInitialize(&argc, &argv);
	for (int i = 1; i < argc; i++) {
		int n = argv[i][0] == '-' ? -1 : run_folder(argv[i]);

		if (n == 0) {
			fprintf(stderr, "no input in '%s'\n", argv[i]);
			return 1;
		}
		done += n > 0 ? n : 0;
	}
	printf("%d inputs\n", done);
	return done > 0 ? 0 : 1;
}
