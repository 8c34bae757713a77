// SPDX-License-Identifier: GPL-2.0-only
/*
 * The character device /dev/blkferry/<disk id>: mappings and poll.
 *
 * All pages of a mapping are inserted at mmap time, so there is no fault
 * handler, and a mapping stays valid after the disk was detached: its file
 * holds a reference on the disk.
 */
#include <linux/capability.h>
#include <linux/cdev.h>
#include <linux/poll.h>
#include <linux/vmalloc.h>

#include "chardev.h"
#include "disk.h"

#define BF_INSERT_BATCH		64

static dev_t bf_chardev_base;
static struct class *bf_class;
static struct cdev bf_cdev;

/* minor -> disk; openers are counted before the disk can go */
static DEFINE_MUTEX(bf_minor_lock);
static struct bf_disk *bf_minors[BLKFERRY_DISKS_MAX];

static int bf_open(struct inode *inode, struct file *file)
{
	struct bf_disk *d;
	int err = 0;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	mutex_lock(&bf_minor_lock);
	d = bf_minors[iminor(inode)];
	if (!d)
		err = -ENODEV;
	else if (test_and_set_bit(0, &d->open))
		err = -EBUSY;
	else
		bf_disk_get(d);
	mutex_unlock(&bf_minor_lock);
	if (err)
		return err;
	WRITE_ONCE(d->event, 0);
	file->private_data = d;
	return stream_open(inode, file);
}

static int bf_release(struct inode *inode, struct file *file)
{
	struct bf_disk *d = file->private_data;

	clear_bit_unlock(0, &d->open);
	bf_disk_put(d);
	return 0;
}

static __poll_t bf_poll(struct file *file, poll_table *wait)
{
	struct bf_disk *d = file->private_data;
	__poll_t mask = 0;

	poll_wait(file, &d->wait, wait);
	if (xchg(&d->event, 0))
		mask |= EPOLLIN | EPOLLRDNORM;
	if (READ_ONCE(d->detached) || READ_ONCE(d->ctl->flags) & BLKFERRY_CTL_GONE)
		mask |= EPOLLHUP;
	return mask;
}

/* Where a region lives and how large it is. */
static void *bf_region(struct bf_disk *d, u32 region, u64 *bytes)
{
	switch (region) {
	case BLKFERRY_REGION_CTL:
		*bytes = PAGE_SIZE;
		return d->ctl;
	case BLKFERRY_REGION_CONS:
		*bytes = PAGE_SIZE;
		return d->cons;
	case BLKFERRY_REGION_DESC:
		*bytes = (u64)d->ring.desc_count * sizeof(*d->descs);
		return d->descs;
	case BLKFERRY_REGION_DATA:
		*bytes = d->ring.data_bytes;
		return d->data;
	case BLKFERRY_REGION_SNAP:
		*bytes = PAGE_ALIGN(d->map.nwords * sizeof(u64));
		return d->map.snap;
	default:
		return NULL;
	}
}

static int bf_insert(struct vm_area_struct *vma, void *from)
{
	unsigned long left = vma_pages(vma);
	unsigned long addr = vma->vm_start;
	struct page *pages[BF_INSERT_BATCH];

	while (left) {
		unsigned long n = min_t(unsigned long, left, BF_INSERT_BATCH);
		unsigned long i, rest = n;
		int err;

		for (i = 0; i < n; i++)
			pages[i] = vmalloc_to_page(from + i * PAGE_SIZE);
		err = vm_insert_pages(vma, addr, pages, &rest);
		if (err)
			return err;
		from += n * PAGE_SIZE;
		addr += n * PAGE_SIZE;
		left -= n;
		cond_resched();
	}
	return 0;
}

static int bf_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct bf_disk *d = file->private_data;
	u64 offset = (u64)vma->vm_pgoff << PAGE_SHIFT;
	u64 within = offset & ((1ULL << BLKFERRY_MMAP_SHIFT) - 1);
	u64 region = offset >> BLKFERRY_MMAP_SHIFT;
	u64 size = vma->vm_end - vma->vm_start;
	u64 bytes = 0;
	void *from;

	from = region > U32_MAX ? NULL : bf_region(d, region, &bytes);
	if (!from || within >= bytes || size > bytes - within)
		return -EINVAL;
	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;
	if (region != BLKFERRY_REGION_CONS) {
		if (vma->vm_flags & VM_WRITE)
			return -EACCES;
		bf_vma_never_write(vma);
	}
	bf_vma_no_copy(vma);
	return bf_insert(vma, from + within);
}

static const struct file_operations bf_fops = {
	.owner = THIS_MODULE,
	.open = bf_open,
	.release = bf_release,
	.poll = bf_poll,
	.mmap = bf_mmap,
	.llseek = noop_llseek,
};

static BF_DEVNODE(bf_devnode)
{
	if (mode)
		*mode = 0600;
	return kasprintf(GFP_KERNEL, "blkferry/%u", MINOR(dev->devt));
}

/* Make the device of a disk; d->id is its minor.  May sleep. */
int bf_chardev_add(struct bf_disk *d)
{
	struct device *dev;

	mutex_lock(&bf_minor_lock);
	bf_minors[d->id] = d;
	mutex_unlock(&bf_minor_lock);
	dev = device_create(bf_class, NULL, MKDEV(MAJOR(bf_chardev_base), d->id), d,
			    "blkferry%u", d->id);
	if (!IS_ERR(dev))
		return 0;
	mutex_lock(&bf_minor_lock);
	bf_minors[d->id] = NULL;
	mutex_unlock(&bf_minor_lock);
	return PTR_ERR(dev);
}

/* Open files keep working.  May sleep. */
void bf_chardev_del(struct bf_disk *d)
{
	mutex_lock(&bf_minor_lock);
	bf_minors[d->id] = NULL;
	mutex_unlock(&bf_minor_lock);
	device_destroy(bf_class, MKDEV(MAJOR(bf_chardev_base), d->id));
}

int __init bf_chardev_init(void)
{
	int err;

	err = alloc_chrdev_region(&bf_chardev_base, 0, BLKFERRY_DISKS_MAX, "blkferry");
	if (err)
		return err;
	bf_class = bf_class_create("blkferry");
	if (IS_ERR(bf_class)) {
		err = PTR_ERR(bf_class);
		goto region;
	}
	bf_class->devnode = bf_devnode;
	cdev_init(&bf_cdev, &bf_fops);
	bf_cdev.owner = THIS_MODULE;
	err = cdev_add(&bf_cdev, bf_chardev_base, BLKFERRY_DISKS_MAX);
	if (!err)
		return 0;
	class_destroy(bf_class);
region:
	unregister_chrdev_region(bf_chardev_base, BLKFERRY_DISKS_MAX);
	return err;
}

void bf_chardev_exit(void)
{
	cdev_del(&bf_cdev);
	class_destroy(bf_class);
	unregister_chrdev_region(bf_chardev_base, BLKFERRY_DISKS_MAX);
}
