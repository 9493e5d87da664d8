/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the metadata keeps about an object: its record (META_OBJECTS) and its place in the order of
 * last uses (META_LRU). The record names that place, so that it can be moved; both change together
 * (meta_apply), so that no kill leaves one without the other.
 *
 * The era (meta_era) says when all blocks of the object were last known to be right. It is older than
 * the present one while blocks from before an unclean restart of the machine are not checked.
 *
 * RECORD_IN_USE marks a partial object whose record is behind its map: after a kill the store looks
 * at the maps of just these to know how much space is used. Host byte order, but for the LRU key,
 * which sorts.
 */
#include "agent/store_internal.h"

#include <endian.h>
#include <errno.h>

#define RECORD_FORMAT 1u

struct disk_record {
	uint16_t format, nhashes;
	uint32_t flags;
	uint64_t size, charged, present;
	uint64_t use_seconds, use_seq;
	uint64_t era; /* in which all blocks were last known to be right; 0 in early records */
	uint64_t hashes[SMALL_BLOCKS]; /* nhashes are stored */
};

bool record_decode(const void *value, size_t len, struct record *ret_rec)
{
	struct disk_record d = {0};

	if (len < offsetof(struct disk_record, hashes) || len > sizeof(d))
		return false;
	memcpy(&d, value, len);
	if (d.format != RECORD_FORMAT || d.nhashes > SMALL_BLOCKS ||
		len != offsetof(struct disk_record, hashes) + d.nhashes * sizeof(d.hashes[0]))
		return false;
	*ret_rec = (struct record){.flags = d.flags,
		.size = d.size,
		.charged = d.charged,
		.present = d.present,
		.use = {d.use_seconds, d.use_seq},
		.era = d.era,
		.nhashes = d.nhashes};
	memcpy(ret_rec->hashes, d.hashes, sizeof(d.hashes));
	return true;
}

int record_read(struct meta *m, const struct object_id *id, struct record *ret_rec)
{
	struct disk_record d;
	size_t len;
	int rc = meta_get(m, META_OBJECTS, id, sizeof(*id), &d, sizeof(d), &len);

	if (rc < 0)
		return rc == -E2BIG ? -ENOENT : rc;
	return record_decode(&d, len, ret_rec) ? 0 : -ENOENT;
}

void lru_key(const struct last_use *use, const struct object_id *id, unsigned char out[LRU_KEY_LEN])
{
	uint64_t seconds = htobe64(use->seconds), seq = htobe64(use->seq);

	memcpy(out, &seconds, 8);
	memcpy(out + 8, &seq, 8);
	memcpy(out + 16, id, sizeof(*id));
}

void lru_key_parse(const unsigned char *key, struct last_use *ret_use, struct object_id *ret_id)
{
	uint64_t seconds, seq;

	memcpy(&seconds, key, 8);
	memcpy(&seq, key + 8, 8);
	memcpy(ret_id, key + 16, sizeof(*ret_id));
	*ret_use = (struct last_use){be64toh(seconds), be64toh(seq)};
}

void record_write_locked(struct store *s, struct object *o)
{
	bool is_complete = atomic_load(&o->is_complete);
	struct disk_record d = {.format = RECORD_FORMAT,
		.size = o->size,
		.charged = o->charged,
		.present = object_present_bytes(o),
		.era = o->is_doubtful	? UINT64_MAX
		       : o->suspect_bytes ? o->era
					  : meta_era(s->meta),
		.use_seconds = o->use.seconds,
		.use_seq = o->use.seq};
	unsigned char old_key[LRU_KEY_LEN], new_key[LRU_KEY_LEN];
	struct meta_op ops[3];
	size_t nops = 0, len;

	if (is_complete && o->nblocks <= SMALL_BLOCKS) {
		d.nhashes = (uint16_t)o->nblocks;
		memcpy(d.hashes, o->hashes, o->nblocks * sizeof(d.hashes[0]));
	}
	d.flags = (is_complete ? RECORD_COMPLETE : 0u) | (o->has_map ? RECORD_HAS_MAP : 0u) |
		  (!is_complete && o->refs > 0 ? RECORD_IN_USE : 0u) | pin_flags(s, o->pin);
	len = offsetof(struct disk_record, hashes) + d.nhashes * sizeof(d.hashes[0]);
	ops[nops++] = (struct meta_op){META_OBJECTS, &o->id, sizeof(o->id), &d, len};
	lru_key(&o->use, &o->id, new_key);
	if (o->is_recorded) {
		lru_key(&o->recorded_use, &o->id, old_key);
		if (memcmp(old_key, new_key, LRU_KEY_LEN) != 0)
			ops[nops++] = (struct meta_op){META_LRU, old_key, LRU_KEY_LEN, NULL, 0};
	} else {
		s->nobjects++;
		victim_came_locked(s, o);
	}
	ops[nops++] = (struct meta_op){META_LRU, new_key, LRU_KEY_LEN, "", 0};
	meta_apply(s->meta, ops, nops);
	o->is_recorded = true;
	o->is_dirty = false;
	o->is_marked = (d.flags & RECORD_IN_USE) != 0;
	o->unrecorded = 0;
	o->recorded_use = o->use;
	store_untouch_locked(s, o);
}

void record_delete(struct meta *m, const struct object_id *id, const struct last_use *use)
{
	unsigned char key[LRU_KEY_LEN];
	struct meta_op ops[2] = {
		{META_OBJECTS, id, sizeof(*id), NULL, 0}, {META_LRU, key, LRU_KEY_LEN, NULL, 0}};

	lru_key(use, id, key);
	meta_apply(m, ops, 2);
}
