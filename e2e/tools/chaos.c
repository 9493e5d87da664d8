/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Load and faults, counted: readers that check every byte (complete files, streamed files, mappings,
 * small files), a walker and a stat loop run over a real mount while a fault plan kills what it names.
 *
 *	e2e-chaos --bin DIR --plan none|server|stop|agent|mixed [--kills N | --seconds S] [--no-passthrough]
 *
 * It makes its data (every 8-byte word of a file is a function of file and position), starts agent and
 * keeper itself and restarts what it kills, as a supervisor would. Prints operations, errors, wrong bytes and
 * how long operations took; the last line is "errors N wrong M". Exit code 0 when both are 0.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB (1024 * 1024ULL)
#define BIG_FILES 4
#define BIG_SIZE (48 * MIB)
#define SMALL_FILES 400
#define MAX_THREADS 16
#define BUCKETS 64

static struct {
	char dir[128], bin[3072], data[160], mount[160], run[160], cache[160];
	const char *plan;
	uint64_t kills, seconds;
	bool has_no_passthrough;
	pid_t agent, keeper;
	_Atomic bool is_over;
	_Atomic uint64_t ops, errors, wrong, bytes, kills_done;
	_Atomic uint64_t longest_us;
	_Atomic uint64_t histogram[BUCKETS]; /* of operation times, by log2 of microseconds */
	/* what each thread is doing: since when (0: nothing), and in words */
	_Atomic uint64_t since[MAX_THREADS];
	char doing[MAX_THREADS][300];
} chaos = {.plan = "server", .kills = 150};

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void die(const char *what)
{
	fprintf(stderr, "chaos: %s: %s\n", what, strerror(errno));
	exit(2);
}

static uint64_t mix(uint64_t x)
{
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdULL;
	x ^= x >> 33;
	x *= 0xc4ceb9fe1a85ec53ULL;
	return x ^ x >> 33;
}

static uint64_t next_random(uint64_t *state)
{
	return mix(*state += 0x9e3779b97f4a7c15ULL);
}

static uint64_t word_at(uint32_t file, uint64_t index)
{
	return mix((uint64_t)file << 40 ^ index);
}

/* ---- data ---- */

static uint64_t size_of(uint32_t file)
{
	return file < BIG_FILES ? BIG_SIZE : 8 + mix(file) % (200 * 1024) / 8 * 8;
}

#define PATH_CAP 256

static void path_of(const char *root, uint32_t file, char out[PATH_CAP])
{
	if (file < BIG_FILES)
		snprintf(out, PATH_CAP, "%s/big-%u", root, file);
	else
		snprintf(out, PATH_CAP, "%s/d%u/small-%u", root, file % 20, file);
}

static void write_file(uint32_t file)
{
	char path[PATH_CAP];
	uint64_t words[8192], size = size_of(file), index = 0;
	int fd;

	path_of(chaos.data, file, path);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
	while (fd >= 0 && index * 8 < size) {
		size_t n = 0;

		while (n < 8192 && (index + n) * 8 < size) {
			words[n] = word_at(file, index + n);
			n++;
		}
		if (write(fd, words, n * 8) != (ssize_t)(n * 8))
			die("write the data");
		index += n;
	}
	if (fd < 0)
		die(path);
	close(fd);
}

static void make_data(void)
{
	char path[PATH_CAP];

	for (int i = 0; i < 20; i++) {
		snprintf(path, sizeof(path), "%s/d%d", chaos.data, i);
		mkdir(path, 0755);
	}
	for (uint32_t f = 0; f < BIG_FILES + SMALL_FILES; f++)
		write_file(f);
}

/* ---- the load ---- */

static _Thread_local unsigned self; /* which of the load's threads */

static uint64_t op_begin(const char *what, const char *path, uint64_t offset)
{
	uint64_t now = now_us();

	snprintf(chaos.doing[self], sizeof(chaos.doing[0]), "%s '%s' at %llu", what, path,
		(unsigned long long)offset);
	atomic_store(&chaos.since[self], now);
	return now;
}

/* Says what takes very long, while it does. */
static void show_slow(void)
{
	for (int i = 0; i < MAX_THREADS; i++) {
		uint64_t since = atomic_load(&chaos.since[i]), now = now_us();

		if (since && now - since > 3000000)
			printf("slow: %s for %.1f s\n", chaos.doing[i], (double)(now - since) / 1e6);
	}
}

static void op_over(uint64_t start_us, const char *what, const char *path, int error)
{
	uint64_t took = now_us() - start_us, longest = atomic_load(&chaos.longest_us);
	unsigned bucket = 0;

	atomic_store(&chaos.since[self], 0);
	atomic_fetch_add(&chaos.ops, 1);
	while (took > longest && !atomic_compare_exchange_weak(&chaos.longest_us, &longest, took))
		;
	while (took >> bucket > 1 && bucket < BUCKETS - 1)
		bucket++;
	atomic_fetch_add(&chaos.histogram[bucket], 1);
	if (error == 0)
		return;
	if (atomic_fetch_add(&chaos.errors, 1) < 20)
		printf("error: %s '%s': %s\n", what, path, strerror(error));
}

static void check_bytes(uint32_t file, uint64_t offset, const void *data, size_t len, const char *path)
{
	const uint64_t *words = data;

	for (size_t i = 0; i < len / 8; i++) {
		if (words[i] == word_at(file, offset / 8 + i))
			continue;
		if (atomic_fetch_add(&chaos.wrong, 1) < 20)
			printf("wrong: '%s' at %llu\n", path, (unsigned long long)(offset + i * 8));
		return;
	}
	atomic_fetch_add(&chaos.bytes, len);
}

static int open_file(uint32_t file, char path[PATH_CAP])
{
	uint64_t start;
	int fd;

	path_of(chaos.mount, file, path);
	start = op_begin("open", path, 0);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	op_over(start, "open", path, fd < 0 ? errno : 0);
	return fd;
}

static void read_some(int fd, uint32_t file, uint64_t offset, size_t len, void *buf, const char *path)
{
	uint64_t start = op_begin("read", path, offset);
	ssize_t n = pread(fd, buf, len, (off_t)offset);

	op_over(start, "read", path, n < 0 ? errno : (size_t)n != len ? ENODATA : 0);
	if (n > 0)
		check_bytes(file, offset, buf, (size_t)n, path);
}

/* A big file from start to end in large reads, closed and opened again. */
static void *read_stream(void *arg)
{
	uint64_t random = (uintptr_t)arg;
	void *buf = malloc(MIB);

	self = (unsigned)(uintptr_t)arg - 1;
	while (!atomic_load(&chaos.is_over)) {
		uint32_t file = next_random(&random) % BIG_FILES;
		char path[PATH_CAP];
		int fd = open_file(file, path);

		for (uint64_t at = 0; fd >= 0 && at < BIG_SIZE && !atomic_load(&chaos.is_over); at += MIB)
			read_some(fd, file, at, MIB, buf, path);
		if (fd >= 0) {
			posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); /* the server is asked again */
			close(fd);
		}
	}
	free(buf);
	return NULL;
}

static void *read_random(void *arg)
{
	uint64_t random = (uintptr_t)arg;
	void *buf = malloc(MIB);

	self = (unsigned)(uintptr_t)arg - 1;
	while (!atomic_load(&chaos.is_over)) {
		uint32_t file = next_random(&random) % BIG_FILES;
		char path[PATH_CAP];
		int fd = open_file(file, path);

		for (int i = 0; i < 64 && fd >= 0 && !atomic_load(&chaos.is_over); i++) {
			size_t len = (next_random(&random) % 65536 + 8) / 8 * 8;
			uint64_t offset = next_random(&random) % (BIG_SIZE - len) / 8 * 8;

			read_some(fd, file, offset, len, buf, path);
		}
		if (fd >= 0)
			close(fd);
	}
	free(buf);
	return NULL;
}

static void *read_mapped(void *arg)
{
	uint64_t random = (uintptr_t)arg;

	self = (unsigned)(uintptr_t)arg - 1;
	while (!atomic_load(&chaos.is_over)) {
		uint32_t file = next_random(&random) % BIG_FILES;
		char path[PATH_CAP];
		int fd = open_file(file, path);
		char *map = fd < 0 ? MAP_FAILED : mmap(NULL, BIG_SIZE, PROT_READ, MAP_SHARED, fd, 0);

		if (fd >= 0)
			close(fd);
		for (int i = 0; i < 64 && map != MAP_FAILED; i++) {
			uint64_t offset = next_random(&random) % (BIG_SIZE - 65536) / 8 * 8;
			uint64_t start = op_begin("mapped read", path, offset);

			check_bytes(file, offset, map + offset, 65536, path);
			op_over(start, "mapped read", path, 0);
		}
		if (map != MAP_FAILED)
			munmap(map, BIG_SIZE);
	}
	return NULL;
}

static void *read_small(void *arg)
{
	uint64_t random = (uintptr_t)arg;
	void *buf = malloc(MIB);

	self = (unsigned)(uintptr_t)arg - 1;
	while (!atomic_load(&chaos.is_over)) {
		uint32_t file = BIG_FILES + next_random(&random) % SMALL_FILES;
		char path[PATH_CAP];
		int fd = open_file(file, path);

		if (fd < 0)
			continue;
		read_some(fd, file, 0, size_of(file), buf, path);
		close(fd);
	}
	free(buf);
	return NULL;
}

static void *walk(void *arg)
{
	self = (unsigned)(uintptr_t)arg - 1;
	while (!atomic_load(&chaos.is_over)) {
		unsigned found = 0;

		for (int i = 0; i < 20; i++) {
			char path[PATH_CAP];
			uint64_t start;
			struct dirent *e;
			DIR *dir;

			snprintf(path, sizeof(path), "%s/d%d", chaos.mount, i);
			start = op_begin("list", path, 0);
			dir = opendir(path);
			errno = 0;
			while (dir && (e = readdir(dir)))
				found += e->d_name[0] != '.';
			op_over(start, "list", path, dir ? errno : ENOENT);
			if (dir)
				closedir(dir);
		}
		if (found != SMALL_FILES && atomic_fetch_add(&chaos.wrong, 1) < 20)
			printf("wrong: the walk found %u files\n", found);
	}
	return NULL;
}

static void *stat_loop(void *arg)
{
	uint64_t random = (uintptr_t)arg;

	self = (unsigned)(uintptr_t)arg - 1;
	while (!atomic_load(&chaos.is_over)) {
		uint32_t file = next_random(&random) % (BIG_FILES + SMALL_FILES);
		char path[PATH_CAP];
		struct stat st;
		uint64_t start;
		int rc;

		path_of(chaos.mount, file, path);
		start = op_begin("stat", path, 0);
		rc = stat(path, &st);
		op_over(start, "stat", path, rc < 0 ? errno : 0);
		if (rc == 0 && (uint64_t)st.st_size != size_of(file))
			atomic_fetch_add(&chaos.wrong, 1);
	}
	return NULL;
}

/* A reader that is itself killed again and again: it must be gone when it is reaped. */
static void *kill_readers(void *arg)
{
	uint64_t random = (uintptr_t)arg;

	self = (unsigned)(uintptr_t)arg - 1;
	while (!atomic_load(&chaos.is_over)) {
		struct timespec pause = {0, (long)(next_random(&random) % 50) * 1000000};
		uint64_t start;
		char path[PATH_CAP];
		pid_t pid;

		path_of(chaos.mount, next_random(&random) % BIG_FILES, path);
		pid = fork();
		if (pid == 0) {
			char *const argv[] = {"cat", path, NULL};
			int null = open("/dev/null", O_WRONLY);

			prctl(PR_SET_PDEATHSIG, SIGKILL);
			dup2(null, 1);
			dup2(null, 2);
			execvp("cat", argv);
			_exit(127);
		}
		nanosleep(&pause, NULL); /* how long it reads is part of the plan, not a wait for anything */
		start = op_begin("kill a reader of", path, 0);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		op_over(start, "kill a reader of", path, 0);
	}
	return NULL;
}

/* ---- the programs ---- */

static pid_t spawn(char *const argv[])
{
	int ready[2];
	char byte, number[16], *full[24];
	pid_t pid;
	int n = 0;

	if (pipe(ready) < 0)
		die("pipe");
	while (argv[n]) {
		full[n] = argv[n];
		n++;
	}
	snprintf(number, sizeof(number), "%d", ready[1]);
	full[n++] = "--ready-fd";
	full[n++] = number;
	full[n] = NULL;
	pid = fork();
	if (pid == 0) {
		char log[192];
		int fd;

		snprintf(log, sizeof(log), "%s/log", chaos.run);
		fd = open(log, O_CREAT | O_APPEND | O_WRONLY, 0644);
		dup2(fd, 2);
		close(ready[0]);
		setsid();
		execv(full[0], full);
		_exit(127);
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1) {
		fprintf(stderr, "chaos: %s did not start; see %s/log\n", argv[0], chaos.run);
		exit(2);
	}
	close(ready[0]);
	return pid;
}

static void start_agent(void)
{
	char program[4096];

	snprintf(program, sizeof(program), "%s/warpdrive-agent", chaos.bin);
	/* less room than data, so that streaming, eviction and reading past the cache all happen */
	chaos.agent = spawn((char *[]){program, "--run-dir", chaos.run, "--cache-dir", chaos.cache, "--set",
		"http-listen=", "--set", "cache-size=128MiB", "--set", "metadata-ttl=1s", NULL});
}

static void start_keeper(void)
{
	char program[4096];

	snprintf(program, sizeof(program), "%s/warpdrive-keeper", chaos.bin);
	chaos.keeper = spawn((char *[]){program, "--run-dir", chaos.run, NULL});
}

static int ctl(char *const argv[])
{
	char program[4096];
	int status = 0;
	pid_t pid = fork();

	snprintf(program, sizeof(program), "%s/warpdrive-ctl", chaos.bin);
	if (pid == 0) {
		setenv("WARPDRIVE_RUN_DIR", chaos.run, 1);
		setenv("WARPDRIVE_CACHE_DIR", chaos.cache, 1);
		execv(program, argv);
		_exit(127);
	}
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* The keeper's child: the server of the moment; 0 when there is none. */
static pid_t server_pid(void)
{
	char path[64], text[256] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", chaos.keeper, chaos.keeper);
	f = fopen(path, "re");
	if (f && !fgets(text, sizeof(text), f))
		text[0] = '\0';
	if (f)
		fclose(f);
	return (pid_t)atoi(text);
}

/* ---- the faults ---- */

static void kill_server(int sig)
{
	pid_t pid = server_pid();

	if (pid > 1 && kill(pid, sig) == 0)
		atomic_fetch_add(&chaos.kills_done, 1);
}

static void kill_agent(void)
{
	if (kill(chaos.agent, SIGKILL) == 0)
		waitpid(chaos.agent, NULL, 0);
	start_agent();
	atomic_fetch_add(&chaos.kills_done, 1);
}

static void one_fault(uint64_t *random)
{
	if (strcmp(chaos.plan, "none") == 0)
		return;
	if (strcmp(chaos.plan, "agent") == 0) {
		kill_agent();
	} else if (strcmp(chaos.plan, "mixed") == 0) {
		uint64_t which = next_random(random) % 4;

		if (which == 0)
			kill_agent();
		else
			kill_server(which == 1 ? SIGTERM : SIGKILL);
		if (which == 3)
			kill_agent(); /* both at once */
	} else {
		kill_server(SIGKILL);
	}
}

static void run_plan(void)
{
	bool is_agent = strcmp(chaos.plan, "agent") == 0 || strcmp(chaos.plan, "mixed") == 0;
	uint64_t random = 42, end = now_us() + chaos.seconds * 1000000, shown = now_us();

	while (chaos.seconds ? now_us() < end : atomic_load(&chaos.kills_done) < chaos.kills) {
		uint64_t ms = is_agent ? 50 + next_random(&random) % 500 : 3 + next_random(&random) % 298;
		struct timespec pause = {0, (long)ms * 1000000};

		nanosleep(&pause, NULL); /* the plan's own rhythm */
		one_fault(&random);
		if (now_us() - shown > 10000000) {
			shown = now_us();
			show_slow();
			printf("%llu faults, %llu operations, %llu MiB checked, errors %llu, wrong %llu\n",
				(unsigned long long)atomic_load(&chaos.kills_done),
				(unsigned long long)atomic_load(&chaos.ops),
				(unsigned long long)(atomic_load(&chaos.bytes) / MIB),
				(unsigned long long)atomic_load(&chaos.errors),
				(unsigned long long)atomic_load(&chaos.wrong));
			fflush(stdout);
		}
	}
}

/* ---- the frame ---- */

static double percentile_ms(double share)
{
	uint64_t total = 0, sum = 0;

	for (int i = 0; i < BUCKETS; i++)
		total += atomic_load(&chaos.histogram[i]);
	for (int i = 0; i < BUCKETS; i++) {
		sum += atomic_load(&chaos.histogram[i]);
		if ((double)sum >= share * (double)total)
			return (double)(2ULL << i) / 1000; /* the bucket's upper end */
	}
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static void give_up(int sig)
{
	static const char text[] = "chaos: an operation hangs\nerrors 1 wrong 0\n";

	if (write(1, text, sizeof(text) - 1) < 0)
		_exit(3);
	kill(chaos.agent, SIGKILL);
	kill(chaos.keeper, SIGKILL);
	_exit(3);
}

static void set_up(void)
{
	const char *base = getenv("E2E_DIR");
	char url[192];

	snprintf(chaos.dir, sizeof(chaos.dir), "%s/wd-chaos-XXXXXX", base ? base : "/var/tmp");
	if (!mkdtemp(chaos.dir))
		die("make a directory");
	snprintf(chaos.data, sizeof(chaos.data), "%s/data", chaos.dir);
	snprintf(chaos.mount, sizeof(chaos.mount), "%s/mount", chaos.dir);
	snprintf(chaos.run, sizeof(chaos.run), "%s/run", chaos.dir);
	snprintf(chaos.cache, sizeof(chaos.cache), "%s/cache", chaos.dir);
	mkdir(chaos.data, 0755);
	mkdir(chaos.mount, 0755);
	mkdir(chaos.run, 0755);
	make_data();
	start_agent();
	start_keeper();
	snprintf(url, sizeof(url), "file://%s", chaos.data);
	if (ctl((char *[]){"warpdrive-ctl", "mount", url, chaos.mount, "-o",
		    chaos.has_no_passthrough ? "no-passthrough,metadata-ttl=1s" : "metadata-ttl=1s", NULL}) != 0)
		exit(2);
}

static int tear_down(void)
{
	int rc = ctl((char *[]){"warpdrive-ctl", "umount", chaos.mount, NULL});

	kill(chaos.keeper, SIGTERM);
	kill(chaos.agent, SIGTERM);
	waitpid(chaos.keeper, NULL, 0);
	waitpid(chaos.agent, NULL, 0);
	if (rc == 0 && !getenv("CHAOS_KEEP"))
		nftw(chaos.dir, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
	return rc;
}

static void parse(int argc, char **argv)
{
	static const struct option options[] = {{"bin", required_argument, NULL, 'b'},
		{"plan", required_argument, NULL, 'p'}, {"kills", required_argument, NULL, 'k'},
		{"seconds", required_argument, NULL, 's'}, {"no-passthrough", no_argument, NULL, 'n'}, {0}};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'b')
			snprintf(chaos.bin, sizeof(chaos.bin), "%s", optarg);
		else if (c == 'p')
			chaos.plan = optarg;
		else if (c == 'k')
			chaos.kills = strtoull(optarg, NULL, 10);
		else if (c == 's')
			chaos.seconds = strtoull(optarg, NULL, 10);
		else if (c == 'n')
			chaos.has_no_passthrough = true;
		else
			exit(2);
	}
	if (!chaos.bin[0] || (strcmp(chaos.plan, "none") == 0 && !chaos.seconds)) {
		fputs("usage: e2e-chaos --bin DIR --plan none|server|agent|mixed [--kills N | --seconds S] "
		      "[--no-passthrough]\n",
			stderr);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	void *(*const load[])(void *) = {read_stream, read_stream, read_random, read_random, read_mapped,
		read_small, read_small, walk, stat_loop, kill_readers};
	pthread_t threads[MAX_THREADS];
	size_t n = sizeof(load) / sizeof(load[0]);
	uint64_t start;
	int rc;

	parse(argc, argv);
	setvbuf(stdout, NULL, _IOLBF, 0);
	set_up();
	start = now_us();
	for (size_t i = 0; i < n; i++)
		pthread_create(&threads[i], NULL, load[i], (void *)(uintptr_t)(i + 1));
	run_plan();
	atomic_store(&chaos.is_over, true);
	signal(SIGALRM, give_up);
	alarm(60);
	for (size_t i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	rc = tear_down();
	alarm(0);
	printf("plan %s: %llu faults in %.0f s; %llu operations, %llu MiB checked\n", chaos.plan,
		(unsigned long long)atomic_load(&chaos.kills_done), (double)(now_us() - start) / 1e6,
		(unsigned long long)atomic_load(&chaos.ops),
		(unsigned long long)(atomic_load(&chaos.bytes) / MIB));
	printf("operation times below: p50 %.3f ms, p99 %.3f ms, p99.9 %.3f ms, longest %.0f ms\n",
		percentile_ms(.5), percentile_ms(.99), percentile_ms(.999),
		(double)atomic_load(&chaos.longest_us) / 1000);
	if (rc != 0)
		printf("error: umount failed, see %s\n", chaos.dir);
	printf("errors %llu wrong %llu\n", (unsigned long long)atomic_load(&chaos.errors) + (rc != 0),
		(unsigned long long)atomic_load(&chaos.wrong));
	return atomic_load(&chaos.errors) || atomic_load(&chaos.wrong) || rc != 0;
}
