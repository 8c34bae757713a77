/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Everything that differs between kernels.  Which variant a kernel has was
 * found out by compiling (probe.sh); the rest of the module is written for one
 * interface.
 */
#ifndef BF_COMPAT_H
#define BF_COMPAT_H

#include <linux/bio.h>
#include <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/device.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/module.h>

#include "compat_config.h"

/* ---- Probe prototypes; define the probe with these ---------------------- */

#if defined(BF_TP_BIO_QUEUE_BIO)
#define BF_TP_BIO_QUEUE(name)	void name(void *data, struct bio *bio)
#elif defined(BF_TP_BIO_QUEUE_Q_BIO)
#define BF_TP_BIO_QUEUE(name)	void name(void *data, struct request_queue *q, struct bio *bio)
#endif

#if defined(BF_TP_BIO_COMPLETE_Q_BIO)
#define BF_TP_BIO_COMPLETE(name) void name(void *data, struct request_queue *q, struct bio *bio)
#elif defined(BF_TP_BIO_COMPLETE_Q_BIO_INT)
#define BF_TP_BIO_COMPLETE(name) void name(void *data, struct request_queue *q, struct bio *bio, \
					   int error)
#endif

#if defined(BF_TP_RQ_COMPLETE_STATUS)
#define BF_TP_RQ_COMPLETE(name)	void name(void *data, struct request *rq, blk_status_t error, \
					  unsigned int nr_bytes)
#elif defined(BF_TP_RQ_COMPLETE_INT)
#define BF_TP_RQ_COMPLETE(name)	void name(void *data, struct request *rq, int error, \
					  unsigned int nr_bytes)
#endif

#if defined(BF_TP_RQ_ISSUE_RQ)
#define BF_TP_RQ_ISSUE(name)	void name(void *data, struct request *rq)
#elif defined(BF_TP_RQ_ISSUE_Q_RQ)
#define BF_TP_RQ_ISSUE(name)	void name(void *data, struct request_queue *q, struct request *rq)
#endif

/* ---- Objects ------------------------------------------------------------ */

static inline struct gendisk *bf_bio_disk(const struct bio *bio)
{
#if defined(BF_BIO_DISK_BI_BDEV)
	return bio->bi_bdev->bd_disk;
#elif defined(BF_BIO_DISK_BI_DISK)
	return bio->bi_disk;
#endif
}

static inline struct gendisk *bf_rq_disk(const struct request *rq)
{
#if defined(BF_RQ_DISK_QUEUE)
	return rq->q->disk;
#elif defined(BF_RQ_DISK_RQ)
	return rq->rq_disk;
#endif
}

static inline bool bf_disk_is_gone(struct gendisk *disk)
{
#if defined(BF_DISK_GONE_GD_DEAD)
	return test_bit(GD_DEAD, &disk->state);
#elif defined(BF_DISK_GONE_UP)
	return !(disk->flags & GENHD_FL_UP);
#endif
}

static inline sector_t bf_bdev_sectors(struct block_device *bdev)
{
#if defined(BF_NR_SECTORS_BDEV)
	return bdev_nr_sectors(bdev);
#elif defined(BF_NR_SECTORS_INODE)
	return i_size_read(bdev->bd_inode) >> SECTOR_SHIFT;
#endif
}

static inline bool bf_bdev_is_dax(struct block_device *bdev)
{
#if defined(BF_DAX_MACRO)
	return blk_queue_dax(bdev_get_queue(bdev));
#elif defined(BF_DAX_QUEUE)
	return test_bit(QUEUE_FLAG_DAX, &bdev_get_queue(bdev)->queue_flags);
#endif
}

static inline bool bf_bdev_is_partition(struct block_device *bdev)
{
#if defined(BF_PARTITION_HELPER)
	return bdev_is_partition(bdev);
#elif defined(BF_PARTITION_CONTAINS)
	return bdev != bdev->bd_contains;
#endif
}

/* ---- Opening a block device, read-only and shared ------------------------ */

struct bf_bdev {
	struct block_device *bdev;
#if defined(BF_BDEV_OPEN_FILE)
	struct file *file;
#endif
};

static inline int bf_bdev_open(struct bf_bdev *b, dev_t dev)
{
#if defined(BF_BDEV_OPEN_FILE)
	b->file = bdev_file_open_by_dev(dev, BLK_OPEN_READ, NULL, NULL);
	if (IS_ERR(b->file))
		return PTR_ERR(b->file);
	b->bdev = file_bdev(b->file);
	return 0;
#else
#if defined(BF_BDEV_OPEN_GET_BY_DEV_HOLDER)
	b->bdev = blkdev_get_by_dev(dev, BLK_OPEN_READ, NULL, NULL);
#elif defined(BF_BDEV_OPEN_GET_BY_DEV)
	b->bdev = blkdev_get_by_dev(dev, FMODE_READ, NULL);
#endif
	return PTR_ERR_OR_ZERO(b->bdev);
#endif
}

static inline void bf_bdev_close(struct bf_bdev *b)
{
#if defined(BF_BDEV_OPEN_FILE)
	fput(b->file);
#elif defined(BF_BDEV_OPEN_GET_BY_DEV_HOLDER)
	blkdev_put(b->bdev, NULL);
#elif defined(BF_BDEV_OPEN_GET_BY_DEV)
	blkdev_put(b->bdev, FMODE_READ);
#endif
	b->bdev = NULL;
}

/* ---- File systems: freeze and thaw; *sb is opaque ------------------------ */

static inline int bf_bdev_freeze(struct block_device *bdev, void **sb)
{
#if defined(BF_FREEZE_BDEV_FREEZE)
	return bdev_freeze(bdev);
#elif defined(BF_FREEZE_FREEZE_BDEV)
	return freeze_bdev(bdev);
#elif defined(BF_FREEZE_FREEZE_BDEV_SB)
	*sb = freeze_bdev(bdev);
	return PTR_ERR_OR_ZERO(*sb);
#endif
}

static inline int bf_bdev_thaw(struct block_device *bdev, void *sb)
{
#if defined(BF_FREEZE_BDEV_FREEZE)
	return bdev_thaw(bdev);
#elif defined(BF_FREEZE_FREEZE_BDEV)
	return thaw_bdev(bdev);
#elif defined(BF_FREEZE_FREEZE_BDEV_SB)
	return thaw_bdev(bdev, sb);
#endif
}

/* ---- Character device and mappings --------------------------------------- */

#if defined(BF_DEVNODE_CONST)
#define BF_DEVNODE(name) char *name(const struct device *dev, umode_t *mode)
#elif defined(BF_DEVNODE_PLAIN)
#define BF_DEVNODE(name) char *name(struct device *dev, umode_t *mode)
#endif

static inline struct class *bf_class_create(const char *name)
{
#if defined(BF_CLASS_CREATE_NAME)
	return class_create(name);
#elif defined(BF_CLASS_CREATE_OWNER)
	return class_create(THIS_MODULE, name);
#endif
}

static inline void bf_vma_never_write(struct vm_area_struct *vma)
{
#if defined(BF_VM_FLAGS_CLEAR)
	vm_flags_clear(vma, VM_MAYWRITE);
#elif defined(BF_VM_FLAGS_DIRECT)
	vma->vm_flags &= ~VM_MAYWRITE;
#endif
}

static inline void bf_vma_no_copy(struct vm_area_struct *vma)
{
#if defined(BF_VM_FLAGS_CLEAR)
	vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP | VM_DONTCOPY);
#elif defined(BF_VM_FLAGS_DIRECT)
	vma->vm_flags |= VM_DONTEXPAND | VM_DONTDUMP | VM_DONTCOPY;
#endif
}

/* ---- Payload -------------------------------------------------------------- */

/*
 * Of one page at most.  The copy of a whole page is compiled in: on a CPU
 * without FSRM memcpy() of 7.2 takes three times as many instructions.
 */
static inline void bf_copy_bvec(char *to, struct bio_vec *v)
{
	if (!IS_ENABLED(CONFIG_HIGHMEM) && v->bv_len == PAGE_SIZE) {
		memcpy(to, page_address(v->bv_page) + v->bv_offset, PAGE_SIZE);
		return;
	}
#if defined(BF_COPY_BVEC_MEMCPY_FROM_BVEC)
	memcpy_from_bvec(to, v);
#elif defined(BF_COPY_BVEC_KMAP_ATOMIC)
	char *from = kmap_atomic(v->bv_page);

	memcpy(to, from + v->bv_offset, v->bv_len);
	kunmap_atomic(from);
#endif
}

#endif /* BF_COMPAT_H */
