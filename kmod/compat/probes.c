// SPDX-License-Identifier: GPL-2.0-only
/*
 * One tiny function per variant of a kernel interface, compiled one at a time
 * by probe.sh with BF_PROBE_<feature>_<variant>.  A name that is not handled
 * here stops the build.
 */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/mm.h>
#include <trace/events/block.h>

void bf_probe(void *a, void *b, void *c);

#define TP_PROBE(tp, ...)						\
	static void cb(void *data, __VA_ARGS__) { }			\
	void bf_probe(void *a, void *b, void *c)			\
	{								\
		check_trace_callback_type_##tp(cb);			\
	}

#define PROBE(...)							\
	void bf_probe(void *a, void *b, void *c)			\
	{								\
		__VA_ARGS__;						\
	}

/* 5.11: the queue is no longer an argument */
#if defined(BF_PROBE_tp_bio_queue_bio)
TP_PROBE(block_bio_queue, struct bio *bio)
#elif defined(BF_PROBE_tp_bio_queue_q_bio)
TP_PROBE(block_bio_queue, struct request_queue *q, struct bio *bio)

/* 5.9: the error is no longer an argument */
#elif defined(BF_PROBE_tp_bio_complete_q_bio)
TP_PROBE(block_bio_complete, struct request_queue *q, struct bio *bio)
#elif defined(BF_PROBE_tp_bio_complete_q_bio_int)
TP_PROBE(block_bio_complete, struct request_queue *q, struct bio *bio, int error)

/* 5.16: the error is a blk_status_t */
#elif defined(BF_PROBE_tp_rq_complete_status)
TP_PROBE(block_rq_complete, struct request *rq, blk_status_t error, unsigned int nr_bytes)
#elif defined(BF_PROBE_tp_rq_complete_int)
TP_PROBE(block_rq_complete, struct request *rq, int error, unsigned int nr_bytes)

/* 5.11 (and stable 5.10) */
#elif defined(BF_PROBE_tp_rq_issue_rq)
TP_PROBE(block_rq_issue, struct request *rq)
#elif defined(BF_PROBE_tp_rq_issue_q_rq)
TP_PROBE(block_rq_issue, struct request_queue *q, struct request *rq)

/* 5.12 */
#elif defined(BF_PROBE_bio_disk_bi_bdev)
PROBE(struct bio *bio = a; *(struct gendisk **)b = bio->bi_bdev->bd_disk)
#elif defined(BF_PROBE_bio_disk_bi_disk)
PROBE(struct bio *bio = a; *(struct gendisk **)b = bio->bi_disk)

/* 5.17 */
#elif defined(BF_PROBE_rq_disk_queue)
PROBE(struct request *rq = a; *(struct gendisk **)b = rq->q->disk)
#elif defined(BF_PROBE_rq_disk_rq)
PROBE(struct request *rq = a; *(struct gendisk **)b = rq->rq_disk)

/* 5.15 */
#elif defined(BF_PROBE_disk_gone_gd_dead)
PROBE(struct gendisk *d = a; *(bool *)b = test_bit(GD_DEAD, &d->state))
#elif defined(BF_PROBE_disk_gone_up)
PROBE(struct gendisk *d = a; *(bool *)b = !(d->flags & GENHD_FL_UP))

/* 5.11 */
#elif defined(BF_PROBE_disk_part0_pointer)
PROBE(struct gendisk *d = a; *(struct block_device **)b = d->part0)
#elif defined(BF_PROBE_disk_part0_embedded)
PROBE(struct gendisk *d = a; *(struct hd_struct **)b = &d->part0)

/* 5.16 */
#elif defined(BF_PROBE_nr_sectors_bdev)
PROBE(*(sector_t *)b = bdev_nr_sectors((struct block_device *)a))
#elif defined(BF_PROBE_nr_sectors_inode)
PROBE(struct block_device *bdev = a;
      *(sector_t *)b = i_size_read(bdev->bd_inode) >> 9)

#elif defined(BF_PROBE_dax_macro)
PROBE(struct request_queue *q = a; *(bool *)b = blk_queue_dax(q))
#elif defined(BF_PROBE_dax_queue)
PROBE(struct request_queue *q = a; *(bool *)b = test_bit(QUEUE_FLAG_DAX, &q->queue_flags))

/* 5.11 */
#elif defined(BF_PROBE_partition_helper)
PROBE(*(bool *)b = bdev_is_partition((struct block_device *)a))
#elif defined(BF_PROBE_partition_contains)
PROBE(struct block_device *bdev = a; *(bool *)b = bdev != bdev->bd_contains)

/* 6.9 a file, 6.5 holder operations, before that an fmode_t */
#elif defined(BF_PROBE_bdev_open_file)
PROBE(struct file *f = bdev_file_open_by_dev(0, BLK_OPEN_READ, NULL, NULL);
      *(struct block_device **)b = file_bdev(f); fput(f))
#elif defined(BF_PROBE_bdev_open_get_by_dev_holder)
PROBE(struct block_device *bdev = blkdev_get_by_dev(0, BLK_OPEN_READ, NULL, NULL);
      blkdev_put(bdev, NULL))
#elif defined(BF_PROBE_bdev_open_get_by_dev)
PROBE(struct block_device *bdev = blkdev_get_by_dev(0, FMODE_READ, NULL);
      blkdev_put(bdev, FMODE_READ))

/* 6.8; an int since 5.11, a super block before */
#elif defined(BF_PROBE_freeze_bdev_freeze)
PROBE(int r = bdev_freeze(a); r |= bdev_thaw(a); *(int *)b = r)
#elif defined(BF_PROBE_freeze_freeze_bdev)
PROBE(int r = freeze_bdev(a); r |= thaw_bdev(a); *(int *)b = r)
#elif defined(BF_PROBE_freeze_freeze_bdev_sb)
PROBE(struct super_block *s = freeze_bdev(a); *(int *)b = thaw_bdev(a, s))

/* 6.4 */
#elif defined(BF_PROBE_class_create_name)
PROBE(*(struct class **)b = class_create("x"))
#elif defined(BF_PROBE_class_create_owner)
PROBE(*(struct class **)b = class_create(THIS_MODULE, "x"))

/* 6.2 */
#elif defined(BF_PROBE_devnode_const)
static char *node(const struct device *dev, umode_t *mode) { return NULL; }
PROBE(struct class *cl = a; cl->devnode = node)
#elif defined(BF_PROBE_devnode_plain)
static char *node(struct device *dev, umode_t *mode) { return NULL; }
PROBE(struct class *cl = a; cl->devnode = node)

/* 6.3 */
#elif defined(BF_PROBE_vm_flags_clear)
PROBE(vm_flags_clear((struct vm_area_struct *)a, VM_MAYWRITE))
#elif defined(BF_PROBE_vm_flags_direct)
PROBE(struct vm_area_struct *vma = a; vma->vm_flags &= ~VM_MAYWRITE)

/* 5.15 */
#elif defined(BF_PROBE_copy_bvec_memcpy_from_bvec)
PROBE(memcpy_from_bvec(a, (struct bio_vec *)b))
#elif defined(BF_PROBE_copy_bvec_kmap_atomic)
PROBE(struct bio_vec *v = b; void *p = kmap_atomic(v->bv_page);
      memcpy(a, p + v->bv_offset, v->bv_len); kunmap_atomic(p))

#else
#error "probe.sh asks for a variant that probes.c does not know"
#endif
