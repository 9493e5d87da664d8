/* SPDX-License-Identifier: Apache-2.0 */
/* The .map file: what is written is read, what is damaged is absent. */
#include "agent/test/store_fixture.h"

#include "agent/store_internal.h"

struct seen {
	uint32_t n;
	uint64_t sum;
};

static void see(void *arg, uint32_t block, uint64_t hash)
{
	struct seen *s = arg;

	s->n++;
	s->sum += hash * (block + 1);
}

static int new_map(uint64_t size, struct object_id *ret_id)
{
	char path[] = "/tmp/wd-map-XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	unlink(path);
	*ret_id = make_id(1);
	assert_int_equal(map_write_header(fd, ret_id, size), 0);
	assert_int_equal(ftruncate(fd, (off_t)map_bytes(wd_nblocks(size))), 0);
	return fd;
}

static void entries_are_read_as_written(void **state)
{
	struct object_id id;
	int fd = new_map(10000 * BLOCK - 1, &id);
	struct seen s = {0};
	uint64_t hash;

	assert_int_equal(map_write(fd, &id, 0, 7), 0);
	assert_int_equal(map_write(fd, &id, 4096, 8), 0);
	assert_int_equal(map_write(fd, &id, 9999, 0), 0);
	assert_int_equal(map_check_header(fd, &id, 10000 * BLOCK - 1), 0);
	assert_int_equal(map_load(fd, &id, 10000, see, &s), 0);
	assert_int_equal(s.n, 3);
	assert_int_equal(s.sum, 7 + 8 * 4097);
	assert_int_equal(map_read(fd, &id, 4096, &hash), 0);
	assert_int_equal(hash, 8);
	assert_int_equal(map_read(fd, &id, 9999, &hash), 0);
	assert_int_equal(hash, 0);
	assert_int_equal(map_read(fd, &id, 1, &hash), -ENOENT);
	assert_int_equal(map_clear(fd, 4096), 0);
	assert_int_equal(map_read(fd, &id, 4096, &hash), -ENOENT);
	close(fd);
}

static void a_damaged_entry_costs_its_own_block_only(void **state)
{
	struct object_id id;
	int fd = new_map(100 * BLOCK, &id);

	for (unsigned byte = 0; byte < 16; byte++) {
		struct seen s = {0};
		unsigned char c;

		for (uint32_t i = 0; i < 100; i++)
			assert_int_equal(map_write(fd, &id, i, i * 1234567), 0);
		assert_int_equal(pread(fd, &c, 1, (off_t)map_bytes(50) + byte), 1);
		c ^= 0x10;
		assert_int_equal(pwrite(fd, &c, 1, (off_t)map_bytes(50) + byte), 1);
		assert_int_equal(map_load(fd, &id, 100, see, &s), -EUCLEAN);
		assert_int_equal(s.n, 99);
		s = (struct seen){0};
		assert_int_equal(map_load(fd, &id, 100, see, &s), 0); /* it is absent now */
		assert_int_equal(s.n, 99);
	}
	close(fd);
}

static void an_entry_counts_only_at_its_place_and_for_its_object(void **state)
{
	struct object_id id, other = make_id(2);
	int fd = new_map(100 * BLOCK, &id);
	unsigned char entry[16];
	uint64_t hash;

	assert_int_equal(map_write(fd, &id, 3, 42), 0);
	assert_int_equal(pread(fd, entry, 16, (off_t)map_bytes(3)), 16);
	assert_int_equal(pwrite(fd, entry, 16, (off_t)map_bytes(4)), 16);
	assert_int_equal(map_read(fd, &id, 3, &hash), 0);
	assert_int_equal(map_read(fd, &id, 4, &hash), -ENOENT);
	assert_int_equal(map_read(fd, &other, 3, &hash), -ENOENT);
	close(fd);
}

static void a_header_must_fit_in_every_byte(void **state)
{
	struct object_id id, other = make_id(2);
	int fd = new_map(100 * BLOCK, &id);

	assert_int_equal(map_check_header(fd, &other, 100 * BLOCK), -EILSEQ);
	assert_int_equal(map_check_header(fd, &id, 100 * BLOCK + 1), -EILSEQ);
	for (off_t i = 0; i < 64; i++) {
		unsigned char c, bad;

		assert_int_equal(pread(fd, &c, 1, i), 1);
		bad = c ^ 1;
		assert_int_equal(pwrite(fd, &bad, 1, i), 1);
		assert_int_equal(map_check_header(fd, &id, 100 * BLOCK), -EILSEQ);
		assert_int_equal(pwrite(fd, &c, 1, i), 1);
	}
	assert_int_equal(map_check_header(fd, &id, 100 * BLOCK), 0);
	assert_int_equal(ftruncate(fd, 63), 0);
	assert_int_equal(map_check_header(fd, &id, 100 * BLOCK), -EILSEQ);
	close(fd);
}

static void a_map_cut_short_lacks_the_rest(void **state)
{
	struct object_id id;
	int fd = new_map(10000 * BLOCK, &id);
	struct seen s = {0};

	for (uint32_t i = 0; i < 10000; i++)
		assert_int_equal(map_write(fd, &id, i, i), 0);
	assert_int_equal(ftruncate(fd, (off_t)map_bytes(5000) + 3), 0);
	assert_int_equal(map_load(fd, &id, 10000, see, &s), -EUCLEAN);
	assert_int_equal(s.n, 5000);
	s = (struct seen){0};
	assert_int_equal(map_load(fd, &id, 10000, see, &s), 0); /* as long as it should be, and empty there */
	assert_int_equal(s.n, 5000);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(entries_are_read_as_written),
		cmocka_unit_test(a_damaged_entry_costs_its_own_block_only),
		cmocka_unit_test(an_entry_counts_only_at_its_place_and_for_its_object),
		cmocka_unit_test(a_header_must_fit_in_every_byte),
		cmocka_unit_test(a_map_cut_short_lacks_the_rest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
