// SPDX-License-Identifier: GPL-2.0-only
/*
 * For tests only: writes one page to a bio-based disk by calling its driver
 * directly, as no well-behaved user of the block layer does.  The disk counts
 * the write, but no tracepoint tells of it.
 *
 * insmod bypass.ko path=/dev/dm-0 sector=4096 byte=0x5a; rmmod bypass
 * The write has ended when it is loaded.
 */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/completion.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/module.h>

static char *path;
module_param(path, charp, 0444);
static unsigned long long sector;
module_param(sector, ullong, 0444);
static uint byte = 0x5a;
module_param(byte, uint, 0444);

static void bypass_end(struct bio *bio)
{
	complete(bio->bi_private);
}

static int bypass_write(struct block_device *bdev, struct page *page)
{
	DECLARE_COMPLETION_ONSTACK(done);
	struct bio *bio;
	int err;

	if (!bdev->bd_disk->fops->submit_bio)
		return -EOPNOTSUPP;
	bio = bio_alloc(bdev, 1, REQ_OP_WRITE | REQ_SYNC, GFP_KERNEL);
	bio->bi_iter.bi_sector = sector;
	bio->bi_private = &done;
	bio->bi_end_io = bypass_end;
	__bio_add_page(bio, page, PAGE_SIZE, 0);
	bdev->bd_disk->fops->submit_bio(bio);
	wait_for_completion_io(&done);
	err = blk_status_to_errno(bio->bi_status);
	bio_put(bio);
	return err;
}

static int __init bypass_init(void)
{
	struct page *page;
	struct file *file;
	int err;

	if (!path)
		return -EINVAL;
	file = filp_open(path, O_RDWR, 0);
	if (IS_ERR(file))
		return PTR_ERR(file);
	page = alloc_page(GFP_KERNEL);
	if (!S_ISBLK(file_inode(file)->i_mode)) {
		err = -ENOTBLK;
	} else if (!page) {
		err = -ENOMEM;
	} else {
		memset(page_address(page), (int)byte, PAGE_SIZE);
		err = bypass_write(I_BDEV(file->f_mapping->host), page);
	}
	if (page)
		__free_page(page);
	fput(file);
	return err;
}

static void __exit bypass_exit(void)
{
}

module_init(bypass_init);
module_exit(bypass_exit);

MODULE_DESCRIPTION("blkferry tests: a write that no tracepoint tells of");
MODULE_LICENSE("GPL");
