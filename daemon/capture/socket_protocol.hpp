// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <blkferry.h>

#include "base/bytes.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "capture/tracker.hpp"

/// What a SocketTracker and a producer say to each other over SOCK_SEQPACKET, one message a packet, little-endian:
///
///     0 u32 magic "BFTP"   4 u16 op   6 u16 zero   8 u32 request   12 u32 errno   16 body
///
/// An answer has the op and the request number of its question; errno 0 means success, else the body is a text.
/// Bodies (question -> answer; string: u16 length and bytes; id: 16 bytes):
///
///     info          -> u32 abi, u32 inflight, id load_id, u64 seq, u64 void_seq, string version
///     list          -> u32 n, n * u32 disk
///     disk_get      u32 disk -> disk
///     find          string path -> u64 dev
///     attach        u64 dev, u64 data_bytes, u32 descs, u32 inline_max (0: default) -> disk
///     detach        u32 disk -> u64 void_seq
///     open_ring     u32 disk -> 5 * u64 bytes of ctl, cons, desc, data, snap; with SCM_RIGHTS: the reading end of a pipe
///                   (a byte per wake-up, end of file when the disk is detached) and five memfds sealed against shrinking
///     resync_begin  u32 disk -> u64 seq0
///     resync_clear  u32 disk, u64 epoch (0: any), u32 n, n * (u64 sector, u64 sectors) ->
///     resync_end    u32 disk -> u64 seq
///     mark_dirty    u32 disk, u64 zero, u32 n, n * (u64 sector, u64 sectors) ->      (n = 0: the whole disk)
///     cut           u32 freeze_ms, u32 n, n * u64 dev -> u64 seq
///     seq_floor     u64 seq ->
///     subscribe     -> ; from then on the connection carries events only, request 0:
///     event         u32 disk, u32 kind, u32 state, u32 flags, u64 seq
///
///     disk          u32 disk, u32 state, u64 dev, u64 data_bytes, u32 descs, u32 inline_max, u32 flags, u32 block_shift,
///                   u64 sectors, id attach_id, u64 gap_seq, u64 close_seq, u64 epoch_seq, u64 active_blocks,
///                   u64 snap_blocks, u64 memory, u32 n <= 64, n * u64 counters, string name, string device_path
namespace blkferry::capture::wire {

enum class Op : std::uint16_t {
    info = BLKFERRY_CMD_INFO,
    seq_floor = BLKFERRY_CMD_SEQ_FLOOR,
    attach = BLKFERRY_CMD_ATTACH,
    detach = BLKFERRY_CMD_DETACH,
    disk_get = BLKFERRY_CMD_DISK_GET,
    resync_begin = BLKFERRY_CMD_RESYNC_BEGIN,
    resync_clear = BLKFERRY_CMD_RESYNC_CLEAR,
    resync_end = BLKFERRY_CMD_RESYNC_END,
    mark_dirty = BLKFERRY_CMD_MARK_DIRTY,
    cut = BLKFERRY_CMD_CUT,
    event = BLKFERRY_CMD_EVENT,
    list = 64,
    find = 65,
    open_ring = 66,
    subscribe = 67,
};

inline constexpr std::size_t header_bytes = 16;
inline constexpr std::size_t message_bytes_max = 64U << 10;
inline constexpr std::size_t string_bytes_max = 4096;
inline constexpr std::size_t ring_fds = 6;
inline constexpr std::size_t ring_regions = 5;

struct Message {
    Op op = Op::info;
    std::uint32_t request = 0;
    std::uint32_t error = 0;  ///< errno
    std::vector<std::byte> body;
    std::vector<Fd> fds;
};

/// Sends one message with copies of `fds`; `message.fds` is not looked at. Errc::again on a socket that would block.
[[nodiscard]] Result<void> send(int socket, const Message& message, std::span<const int> fds = {});
/// Receives one message. Errc::closed at the end, Errc::again on a socket that would block.
[[nodiscard]] Result<Message> receive(int socket);

void put_string(ByteWriter& w, std::string_view text);
[[nodiscard]] std::string get_string(ByteReader& r);
void put_id(ByteWriter& w, const Uuid& id);
[[nodiscard]] Uuid get_id(ByteReader& r);
void put_disk(ByteWriter& w, const DiskInfo& disk);
[[nodiscard]] Result<DiskInfo> get_disk(ByteReader& r);
void put_ranges(ByteWriter& w, std::span<const Extent> ranges);
/// At most BLKFERRY_RANGES_MAX.
[[nodiscard]] Result<std::vector<Extent>> get_ranges(ByteReader& r);

/// The state as enum; anything unknown is an error.
[[nodiscard]] Result<DiskState> disk_state(std::uint32_t value);

}  // namespace blkferry::capture::wire
