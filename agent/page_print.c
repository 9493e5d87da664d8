/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page as HTML. Pictures are SVG in the page itself: of a strip a rectangle per run of cells that look alike, of
 * rates a curve. Whoever cannot see them reads the same in words beside them.
 */
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "agent/page_internal.h"
#include "common/config.h"
#include "common/utf8.h"

#define TEXT_MAX 500 /* bytes of one name or message that are shown */

/* ---- text ---- */

/* Bytes that are no text, controls, and marks that turn the direction of what follows. */
static bool is_shown(uint32_t code)
{
	return !(code < 0x20 || (code >= 0x7f && code < 0xa0) || (code >= 0x202a && code <= 0x202e) ||
		(code >= 0x2066 && code <= 0x2069) || code == 0x200e || code == 0x200f || code == 0xfeff);
}

static void print_text(FILE *out, const char *text)
{
	const char *p = text;

	while (*p && p - text < TEXT_MAX) {
		uint32_t code = 0;
		unsigned len = wd_utf8_decode(p, &code);

		if (len == 0 || !is_shown(code))
			putc('?', out);
		else if (*p == '&')
			fputs("&amp;", out);
		else if (*p == '<')
			fputs("&lt;", out);
		else if (*p == '>')
			fputs("&gt;", out);
		else if (*p == '"')
			fputs("&quot;", out);
		else if (*p == '\'')
			fputs("&#39;", out);
		else
			fwrite(p, 1, len, out);
		p += len ? len : 1;
	}
	if (*p)
		fputs("…", out);
}

static void print_size(FILE *out, uint64_t bytes)
{
	char text[24];

	fputs(wd_format_size(bytes, text, sizeof(text)), out);
}

static void print_share(FILE *out, uint64_t part, uint64_t whole)
{
	if (part >= whole)
		fputs("100%", out);
	else /* rounded down: 100% is said of what is complete, and of nothing else */
		fprintf(out, "%.1f%%", (double)(uint64_t)((unsigned __int128)part * 1000 / whole) / 10.0);
}

static void print_time(FILE *out, int64_t at_s)
{
	time_t at = (time_t)at_s;
	char text[40];
	struct tm tm;

	gmtime_r(&at, &tm);
	strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm);
	fprintf(out, "%s UTC", text);
}

static void print_ago(FILE *out, int64_t s)
{
	if (s < 120)
		fprintf(out, "%" PRId64 " s", s < 0 ? 0 : s);
	else if (s < 7200)
		fprintf(out, "%" PRId64 " min", s / 60);
	else if (s < 48 * 3600)
		fprintf(out, "%" PRId64 " h", s / 3600);
	else
		fprintf(out, "%" PRId64 " days", s / 86400);
}

/* ---- datasets ---- */

static void print_strip(FILE *out, const struct page_strip *s)
{
	unsigned n = page_strip_cells(s), end;

	fprintf(out, "<svg class=\"strip\" viewBox=\"0 0 %u 1\" preserveAspectRatio=\"none\" role=\"img\" "
		     "aria-label=\"cached, by position\"><rect class=\"empty\" width=\"%u\" height=\"1\"/>",
		n ? n : 1, n ? n : 1);
	for (unsigned i = 0; i < n; i = end) {
		unsigned level = page_strip_level(s, i);

		for (end = i + 1; end < n && page_strip_level(s, end) == level; end++)
			;
		if (level > 0)
			fprintf(out, "<rect class=\"fill\" x=\"%u\" width=\"%u\" height=\"1\" fill-opacity=\"%.2f\"/>", i,
				end - i, level == 10 ? 1.0 : 0.15 + 0.07 * level);
	}
	fputs("</svg>", out);
}

static void print_sums(FILE *out, uint64_t cached, uint64_t bytes)
{
	fputs("<span class=\"num\"><b>", out);
	print_share(out, cached, bytes);
	fputs("</b> cached <span class=\"dim\">(", out);
	print_size(out, cached);
	fputs(" of ", out);
	print_size(out, bytes);
	fputs(")</span></span>", out);
}

static void print_dataset(FILE *out, const struct page_dataset *d)
{
	fputs("<article><div class=\"head\"><span class=\"name\">", out);
	print_text(out, d->url);
	fputs("</span>", out);
	if (d->files == 0)
		fputs("<span class=\"dim\">no files known yet</span>", out);
	else
		print_sums(out, d->cached, d->bytes);
	fputs("</div>", out);
	print_strip(out, &d->strip);
	fprintf(out, "<div class=\"dim\">%" PRIu64 " file%s%s, %u mount%s</div></article>\n", d->files,
		d->files == 1 ? "" : "s", d->is_listed ? "" : " known so far", d->mounts, d->mounts == 1 ? "" : "s");
}

static void print_datasets(FILE *out, const struct page *p)
{
	fputs("<section id=\"datasets\"><h2>Datasets</h2>\n", out);
	if (p->ndatasets == 0)
		fputs("<p class=\"dim\">Nothing is mounted.</p>\n", out);
	if (p->is_counting && p->ndatasets > 0)
		fputs("<p class=\"warn\">Still counting: the figures are of a part of the files.</p>\n", out);
	for (unsigned i = 0; i < p->ndatasets; i++)
		print_dataset(out, &p->datasets[i]);
	if (p->more_datasets.n > 0) {
		fprintf(out, "<article><div class=\"head\"><span class=\"name\">%u more datasets, %" PRIu64 " files</span>",
			p->more_datasets.n, p->more_datasets.files);
		print_sums(out, p->more_datasets.cached, p->more_datasets.bytes);
		fputs("</div></article>\n", out);
	}
	if (p->ndatasets > 0)
		fputs("<p class=\"dim\">A strip shows which bytes of a dataset are cached, its files one after the other; the "
		      "stronger the colour, the more.</p>\n",
			out);
	fputs("</section>\n", out);
}

/* ---- rates ---- */

static const struct {
	enum rate rate;
	const char *name, *what;
} rows[] = {
	{RATE_LOCAL, "local", "sizes of files opened by passthrough: the kernel reads them"},
	{RATE_SERVERS, "servers", "bytes with which the mounts&#39; servers answered reads"},
	{RATE_PEER, "peer", "fetched from other nodes"},
	{RATE_ORIGIN, "origin", "fetched from origins"},
};

static void print_curve(FILE *out, const struct rates *r, enum rate rate, uint64_t most)
{
	fprintf(out, "<svg class=\"spark\" viewBox=\"0 0 %d 20\" preserveAspectRatio=\"none\" role=\"img\" "
		     "aria-label=\"the last five minutes\"><path class=\"area\" d=\"M0 20",
		RATES_POINTS - 1);
	for (int twice = 0; twice < 2; twice++) {
		for (unsigned i = 0; i < RATES_POINTS; i++) {
			double y = most ? 19.0 - 18.0 * (double)rates_point(r, rate, i) / (double)most : 19.0;

			fprintf(out, "%c%u %.1f", twice && i == 0 ? 'M' : 'L', i, y);
		}
		fprintf(out, twice ? "\"/></svg>" : "L%d 20Z\"/><path class=\"curve\" d=\"", RATES_POINTS - 1);
	}
}

static void print_rates(FILE *out, const struct page *p)
{
	fputs("<section id=\"rates\"><h2>Read rates, last 5 minutes</h2>\n<table><thead><tr><th>tier</th><th></th>"
	      "<th class=\"num\">now</th><th class=\"num\">most</th></tr></thead><tbody>\n",
		out);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t most = 0;

		for (unsigned k = 0; k < RATES_POINTS; k++) {
			uint64_t point = rates_point(&p->rates, rows[i].rate, k);

			most = point > most ? point : most;
		}
		if (rows[i].rate == RATE_PEER && most == 0)
			continue;
		fprintf(out, "<tr><td>%s<div class=\"dim wide\">%s</div></td><td class=\"chart\">", rows[i].name, rows[i].what);
		print_curve(out, &p->rates, rows[i].rate, most);
		fputs("</td><td class=\"num\">", out);
		print_size(out, rates_point(&p->rates, rows[i].rate, RATES_POINTS - 1));
		fputs("/s</td><td class=\"num\">", out);
		print_size(out, most);
		fputs("/s</td></tr>\n", out);
	}
	fputs("</tbody></table></section>\n", out);
}

/* ---- mounts ---- */

static void print_condition(FILE *out, const struct condition *c)
{
	bool is_well = true;

	for (int part = 0; part < CONDITION_PARTS_COUNT; part++) {
		if (!c->text[part][0])
			continue;
		fprintf(out, "<div class=\"bad\">%s: ", condition_part_name((enum condition_part)part));
		print_text(out, c->text[part]);
		fputs("</div>", out);
		is_well = false;
	}
	if (is_well)
		fputs("well", out);
}

static void print_mounts(FILE *out, const struct page *p)
{
	if (p->nmounts == 0)
		return;
	fputs("<section id=\"mounts\"><h2>Mounts</h2>\n<table><thead><tr><th>directory</th><th>condition</th></tr></thead>"
	      "<tbody>\n",
		out);
	for (unsigned i = 0; i < p->nmounts; i++) {
		const struct page_mount *m = &p->mounts[i];

		fputs("<tr><td class=\"name\">", out);
		print_text(out, m->target);
		fputs("<div class=\"dim\">", out);
		print_text(out, m->url);
		fprintf(out, "%s</div></td><td class=\"name\">", m->has_passthrough ? "" : ", without passthrough");
		print_condition(out, &m->condition);
		fputs("</td></tr>\n", out);
	}
	if (p->more_mounts > 0)
		fprintf(out, "<tr><td>%u more</td><td%s>%u ill</td></tr>\n", p->more_mounts,
			p->more_ill ? " class=\"bad\"" : "", p->more_ill);
	fputs("</tbody></table></section>\n", out);
}

/* ---- the rest ---- */

static void print_log(FILE *out, const struct page *p)
{
	fputs("<section id=\"log\"><h2>Last warnings and errors</h2>\n", out);
	if (p->nlog == 0)
		fputs("<p class=\"dim\">None since the agent began.</p>\n", out);
	else
		fputs("<table class=\"log\"><tbody>\n", out);
	for (unsigned i = 0; i < p->nlog; i++) {
		const struct wd_log_line *l = &p->log[i];

		fputs("<tr><td class=\"at dim\">", out);
		print_time(out, l->at_s);
		fprintf(out, "</td><td class=\"%s\">%s</td><td class=\"msg\">",
			l->level == WD_LOG_ERROR ? "bad" : "warn", l->level == WD_LOG_ERROR ? "error" : "warn");
		print_text(out, l->text);
		fputs("</td></tr>\n", out);
	}
	fputs(p->nlog ? "</tbody></table></section>\n" : "</section>\n", out);
}

static void print_cache(FILE *out, const struct page *p)
{
	struct page_strip bar = {0};

	page_strip_add(&bar, p->used_bytes, p->used_bytes);
	if (p->limit_bytes > p->used_bytes)
		page_strip_add(&bar, p->limit_bytes - p->used_bytes, 0);
	fputs("<article id=\"cache\"><div class=\"head\"><span class=\"name\">cache in ", out);
	print_text(out, p->cache_dir);
	fputs("</span><span class=\"num\"><b>", out);
	print_size(out, p->used_bytes);
	fputs("</b> of ", out);
	print_size(out, p->limit_bytes);
	fputs("</span></div>", out);
	print_strip(out, &bar);
	fprintf(out, "<div class=\"dim\">%" PRIu64 " object%s; ", p->objects, p->objects == 1 ? "" : "s");
	print_size(out, p->free_bytes);
	fputs(" free on its disk</div>", out);
	if (p->cache_trouble) {
		fputs("<div class=\"bad\">", out);
		print_text(out, p->cache_trouble);
		fputs("</div>", out);
	}
	fputs("</article>\n", out);
}

static void print_top(FILE *out, const struct page *p)
{
	fputs("<header><h1>WarpDrive on ", out);
	print_text(out, p->host);
	fputs("</h1><p class=\"dim\">warpdrive-agent " WD_VERSION ", up for ", out);
	print_ago(out, p->now_s - p->since_s);
	fputs("; as of ", out);
	print_time(out, p->now_s);
	fputs("<span id=\"live\">, refreshed every 5 s</span>; <a href=\"/metrics\">metrics</a></p></header>\n", out);
}

void page_print(const struct page *p, FILE *out)
{
	fputs("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>WarpDrive on ", out);
	print_text(out, p->host);
	fprintf(out, "</title>\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
		     "<noscript><meta http-equiv=\"refresh\" content=\"10\"></noscript>\n<style>%s</style></head>\n<body>"
		     "<p id=\"lost\" class=\"bad\">The agent does not answer. This is what it said last.</p>\n<main>\n",
		page_style);
	print_top(out, p);
	print_cache(out, p);
	print_datasets(out, p);
	print_rates(out, p);
	print_mounts(out, p);
	print_log(out, p);
	fprintf(out, "</main>\n<script>%s</script></body></html>\n", page_script);
}
