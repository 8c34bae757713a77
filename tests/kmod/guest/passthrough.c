// SPDX-License-Identifier: GPL-2.0-only
/* A write that no bio announces: WRITE(10) through SG_IO. */
#include <errno.h>
#include <fcntl.h>
#include <scsi/sg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "passthrough.h"

int passthrough_write(const char *path, uint32_t block)
{
    static uint8_t data[512];
    uint8_t sense[32], cdb[10] = {0x2a, 0, (uint8_t)(block >> 24), (uint8_t)(block >> 16), (uint8_t)(block >> 8),
                                  (uint8_t)block, 0, 0, 1, 0};
    struct sg_io_hdr io = {
        .interface_id = 'S',
        .dxfer_direction = SG_DXFER_TO_DEV,
        .cmd_len = sizeof(cdb),
        .mx_sb_len = sizeof(sense),
        .dxfer_len = sizeof(data),
        .dxferp = data,
        .cmdp = cdb,
        .sbp = sense,
        .timeout = 30000,
    };
    int fd = open(path, O_RDWR);
    int err = 0;

    memset(data, 0xa5, sizeof(data));
    if (fd < 0 || ioctl(fd, SG_IO, &io))
        err = errno;
    else if (io.info & SG_INFO_CHECK)
        err = EIO;
    if (fd >= 0)
        close(fd);
    if (err)
        printf("error=%s status=%u host=%u\n", strerror(err), io.status, io.host_status);
    return err ? 1 : 0;
}
