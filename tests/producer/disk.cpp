// SPDX-License-Identifier: Apache-2.0
#include "disk.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <fmt/format.h>

namespace blkferry::producer {

namespace {

constexpr std::uint32_t inline_max_default = 1U << 20;
constexpr std::uint32_t ring_keep = 1;  // a slot always kept for OVERFLOW
constexpr std::uint32_t ring_walk = 16;
constexpr std::uint32_t ring_walk_short = 256;
constexpr std::uint64_t map_bits_max = 1ULL << 32;

template <class T>
void publish(T& word, std::type_identity_t<T> value, std::memory_order order = std::memory_order_relaxed) noexcept {
    std::atomic_ref<T>(word).store(value, order);
}

std::uint64_t coarse_now_ns() noexcept {
    timespec t{};
    ::clock_gettime(CLOCK_REALTIME_COARSE, &t);
    return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000U + static_cast<std::uint64_t>(t.tv_nsec);
}

}  // namespace

std::unexpected<Error> refuse(int err, std::string text) {
    return std::unexpected(Error{Errc::conflict, err, std::move(text)});
}

Disk::Disk(const DiskConfig& config, Sequence& sequence, News news)
    : config_(config), sequence_(sequence), news_(std::move(news)), overlap_(std::make_unique<bf_overlap>()) {}

blkferry_ctl& Disk::ctl() noexcept {
    return *static_cast<blkferry_ctl*>(static_cast<void*>(regions_[BLKFERRY_REGION_CTL].map.data()));
}

blkferry_cons& Disk::cons() noexcept {
    return *static_cast<blkferry_cons*>(static_cast<void*>(regions_[BLKFERRY_REGION_CONS].map.data()));
}

blkferry_desc& Disk::desc(std::uint64_t index) noexcept {
    auto* descs = static_cast<blkferry_desc*>(static_cast<void*>(regions_[BLKFERRY_REGION_DESC].map.data()));
    return descs[index & ring_.desc_mask];
}

Result<std::shared_ptr<Disk>> Disk::make(const DiskConfig& config, Sequence& sequence, News news) {
    std::shared_ptr<Disk> d(new Disk(config, sequence, std::move(news)));
    struct stat st{};
    if (::stat(config.path.c_str(), &st) != 0)
        return refuse(ENODEV, fmt::format("cannot open the device {}", config.path));
    DiskConfig& c = d->config_;
    c.data_bytes = c.data_bytes == 0 ? BLKFERRY_DATA_BYTES_DEF : c.data_bytes;
    if (c.data_bytes < BLKFERRY_DATA_BYTES_MIN || c.data_bytes > BLKFERRY_DATA_BYTES_MAX)
        return refuse(EINVAL, "data ring size is out of range");
    c.data_bytes = std::bit_ceil(c.data_bytes);
    if (c.descs == 0)
        c.descs = static_cast<std::uint32_t>(
            std::clamp<std::uint64_t>(c.data_bytes >> 11, BLKFERRY_DESCS_MIN, BLKFERRY_DESCS_MAX));
    if (c.descs < BLKFERRY_DESCS_MIN || c.descs > BLKFERRY_DESCS_MAX)
        return refuse(EINVAL, "descriptor count is out of range");
    c.descs = std::bit_ceil(c.descs);
    c.inline_max = c.inline_max == 0 ? inline_max_default : c.inline_max;
    c.inline_max = static_cast<std::uint32_t>(std::min<std::uint64_t>({c.inline_max, inline_max_default, c.data_bytes / 4}));
    c.inline_max &= ~511U;
    if (c.inline_max == 0)
        return refuse(EINVAL, "inline limit is below one sector");
    if (st.st_size < 4096 || st.st_size % static_cast<off_t>(sector_bytes) != 0)
        return refuse(EINVAL, "the disk is smaller than 4 KiB or ends within a sector");
    BLKFERRY_TRY(d->allocate(static_cast<std::uint64_t>(st.st_size) / sector_bytes));
    return d;
}

Result<void> Disk::allocate(std::uint64_t sectors) {
    sectors_ = sectors;
    map_shift_ = bf_extent_shift(sectors, 3, map_bits_max);
    const std::uint64_t blocks = ((sectors - 1) >> map_shift_) + 1;
    const std::array<std::uint64_t, capture::wire::ring_regions> bytes = {
        4096, 4096, config_.descs * sizeof(blkferry_desc), config_.data_bytes, bf_map_words(blocks) * 8};
    for (std::size_t i = 0; i < regions_.size(); ++i) {
        Region& r = regions_[i];
        r.bytes = bytes[i];
        r.fd = Fd(::memfd_create("blkferry-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING));
        if (!r.fd || ::ftruncate(r.fd.get(), static_cast<off_t>(r.bytes)) != 0 ||
            ::fcntl(r.fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0)
            return fail_errno(errno, "cannot make ring memory");
        BLKFERRY_TRY_ASSIGN(r.map, Mapping::map(r.fd.get(), r.bytes, PROT_READ | PROT_WRITE, 0, "ring memory"));
    }
    active_.resize(bf_map_words(blocks));
    moved_.resize(bf_map_chunks(blocks));
    auto* snap = static_cast<std::uint64_t*>(static_cast<void*>(regions_[BLKFERRY_REGION_SNAP].map.data()));
    bf_map_init(&map_, blocks, active_.data(), snap, moved_.data());
    bf_ring_init(&ring_, config_.descs, config_.data_bytes);
    blkferry_ctl& c = ctl();
    c.magic = BLKFERRY_CTL_MAGIC;
    c.abi = BLKFERRY_ABI_VERSION;
    c.disk = config_.id;
    c.desc_count = config_.descs;
    c.data_bytes = config_.data_bytes;
    c.nr_sectors = sectors;
    c.dev_major = static_cast<std::uint32_t>(config_.dev >> 32);
    c.dev_minor = static_cast<std::uint32_t>(config_.dev);
    c.block_shift = map_shift_ + BLKFERRY_SECTOR_SHIFT;
    c.logical_block = sector_bytes;
    c.map_bytes = bf_map_words(blocks) * 8;
    const Uuid id = Uuid::random();
    std::ranges::copy(id.bytes, c.attach_id);
    bf_map_mark(&map_, 0, blocks);
    publish_map();
    c.state = BLKFERRY_BITMAP;
    c.gap_seq = 1;
    return {};
}

// ---- Capture, under lock_ unless said otherwise ----------------------------------------------------------------------

void Disk::count(blkferry_counter which, std::uint64_t n) {
    __u64& c = ctl().counters[which];
    publish(c, c + n);
}

void Disk::publish_map() {
    publish(ctl().active_blocks, map_.active_bits);
    publish(ctl().snap_blocks, map_.snap_bits);
}

void Disk::set_flags(std::uint32_t set, std::uint32_t clear) {
    flags_ = (flags_ & ~clear) | set;
    publish(ctl().flags, flags_);
}

void Disk::set_state(blkferry_state state) {
    state_ = state;
    publish(ctl().state, static_cast<std::uint32_t>(state), std::memory_order_release);
    news_pending_ |= 1U << BLKFERRY_EV_STATE;
    wake_pending_ = true;
}

void Disk::gap(std::uint64_t seq) {
    const bool opened = gap_seq_ == 0;
    if (!opened && gap_seq_ <= seq)
        return;
    gap_seq_ = seq;
    publish(ctl().gap_seq, seq, std::memory_order_release);
    if (opened) {
        news_pending_ |= 1U << BLKFERRY_EV_STATE;
        wake_pending_ = true;
    }
}

void Disk::gap_next() {
    if (gap_seq_ == 0)
        gap(sequence_.last.load() + 1);
}

void Disk::mark(std::uint64_t sector, std::uint64_t sectors) {
    sectors = bf_extent_clip(sector, sectors, sectors_);
    if (sectors == 0)
        return;
    u64 past = 0;
    const u64 first = bf_extent_outer(sector, sectors, map_shift_, &past);
    bf_map_mark(&map_, first, past);
    publish_map();
}

int Disk::intake(std::uint32_t max) {
    const std::uint64_t tail = std::atomic_ref<__u64>(cons().tail).load(std::memory_order_acquire);
    if (!bf_ring_tail_ok(&ring_, tail))
        return EBADMSG;
    ring_.target = tail;
    while (ring_.tail != tail && max-- != 0) {
        const blkferry_desc& d = desc(ring_.tail);
        if (d.state < BLKFERRY_D_DONE)
            return EBADMSG;
        bf_ring_pop(&ring_, d.data_pos, d.data_len);
    }
    publish(ctl().kernel_tail, ring_.tail);
    return 0;
}

int Disk::reserve(std::uint64_t sector, std::uint32_t len, std::uint64_t& pos) {
    u64 at = 0;
    const auto place = [&] {
        const bool ok = bf_ring_room(&ring_) > ring_keep && bf_ring_place(&ring_, sector, len, &at);
        pos = at;
        return ok;
    };
    const bool look = ring_.head - ring_.tail >= ring_.desc_count >> 2 ||
                      ring_.data_head - ring_.data_tail >= ring_.data_bytes >> 2;
    if (look && intake(ring_walk) != 0)
        return EBADMSG;
    if (place())
        return 0;
    if (intake(ring_walk_short) != 0)
        return EBADMSG;
    return place() ? 0 : ENOSPC;
}

void Disk::append() {
    ++ring_.head;
    publish(ctl().head, ring_.head, std::memory_order_release);
}

void Disk::spoil(bool garbage) {
    std::unique_lock held(lock_);
    const std::uint64_t seq = ++sequence_.last;
    if (!garbage)
        return;
    blkferry_desc& d = desc(ring_.head);
    d = {};
    d.seq = seq;
    d.op = 0xffff;
    d.sector = ~std::uint64_t{0};
    d.nr_sectors = ~std::uint32_t{0};
    d.data_len = ~std::uint32_t{0};
    publish(d.state, BLKFERRY_D_DONE, std::memory_order_release);
    append();
    wake();
    tell(held);
}

std::uint64_t Disk::marker(blkferry_op op, std::uint16_t flags) {
    blkferry_desc& d = desc(ring_.head);
    d = {};
    d.seq = ++sequence_.last;
    d.time_ns = coarse_now_ns();
    d.op = static_cast<__u16>(op);
    d.flags = flags;
    publish(d.state, BLKFERRY_D_DONE, std::memory_order_release);
    const std::uint64_t seq = d.seq;
    append();
    wake_pending_ = true;
    return seq;
}

void Disk::to_bitmap() {
    if (bf_ring_room(&ring_) != 0)
        gap(marker(BLKFERRY_OP_OVERFLOW, 0));
    else
        gap_next();
    publish(ctl().epoch_seq, 0);
    set_flags(0, BLKFERRY_CTL_DRAINING);
    set_state(BLKFERRY_BITMAP);
}

void Disk::bad_consumer() {
    count(BLKFERRY_C_BAD_CONSUMER, 1);
    set_flags(BLKFERRY_CTL_BAD_CONSUMER, 0);
    if (state_ == BLKFERRY_RING || state_ == BLKFERRY_RESYNC)
        to_bitmap();
}

blkferry_desc& Disk::record(InFlight& w, capture::OpKind op, std::uint32_t len, std::uint64_t pos, bool dirty,
                            std::uint16_t flags) {
    blkferry_desc& d = desc(ring_.head);
    std::uint32_t state = BLKFERRY_D_DIRTY;
    d.seq = ++sequence_.last;
    d.sector = w.sector;
    d.time_ns = coarse_now_ns();
    d.nr_sectors = static_cast<__u32>(w.sectors);
    d.data_pos = len != 0 ? pos : 0;
    d.data_len = len;
    d.op = static_cast<__u16>(op);
    count(BLKFERRY_C_OPS, 1);
    count(BLKFERRY_C_SECTORS, w.sectors);
    if (dirty) {
        if (op == capture::OpKind::write)
            count(BLKFERRY_C_OVERSIZE, 1);
        count(BLKFERRY_C_DIRTY_OPS, 1);
        count(BLKFERRY_C_DIRTY_SECTORS, w.sectors);
        mark(w.sector, w.sectors);
        gap(d.seq);
    } else {
        w.overlap = bf_ovl_enter(overlap_.get(), w.sector, w.sector + w.sectors);
        if ((w.overlap & BF_OVL_HIT) != 0)
            flags |= BLKFERRY_F_OVERLAP;
        w.index = ring_.head;
        state = len != 0 ? BLKFERRY_D_BUSY : BLKFERRY_D_COPIED;
        if (len != 0)
            bf_ring_take(&ring_, pos, len);
    }
    d.flags = flags;
    publish(d.state, state);
    append();
    return d;
}

InFlight Disk::submit(capture::OpKind op, std::uint64_t sector, std::uint64_t sectors, std::span<const std::byte> data,
                      std::uint16_t flags) {
    InFlight w;
    w.sector = sector;
    w.sectors = bf_extent_clip(sector, sectors, sectors_);
    if (w.sectors == 0)
        return w;
    const std::uint64_t bytes = op == capture::OpKind::write ? sectors * sector_bytes : 0;
    const bool dirty = w.sectors != sectors || bytes > config_.inline_max || sectors > UINT32_MAX;
    const std::uint32_t len = dirty ? 0 : static_cast<std::uint32_t>(bytes);
    blkferry_desc* d = nullptr;
    std::uint64_t pos = 0;
    std::unique_lock held(lock_);
    if (state_ >= BLKFERRY_RESYNC) {
        const int err = reserve(sector, len, pos);
        if (err == EBADMSG) {
            bad_consumer();
        } else if (err != 0) {
            count(BLKFERRY_C_OVERFLOWS, 1);
            to_bitmap();
        }
    }
    w.parity = parity_;
    if (state_ >= BLKFERRY_RESYNC) {
        d = &record(w, op, len, pos, dirty, flags);
        w.kind = dirty ? InFlight::Kind::dirty : InFlight::Kind::ring;
        ++inflight_[parity_];
    } else if (state_ == BLKFERRY_BITMAP) {
        count(BLKFERRY_C_DIRTY_OPS, 1);
        count(BLKFERRY_C_DIRTY_SECTORS, w.sectors);
        mark(w.sector, w.sectors);
        w.kind = InFlight::Kind::dirty;
        ++inflight_[parity_];
    }
    tell(held);
    if (d != nullptr && len != 0) {
        std::byte* to = regions_[BLKFERRY_REGION_DATA].map.data() + (pos & (config_.data_bytes - 1));
        std::memcpy(to, data.data(), len);
        publish(d->state, BLKFERRY_D_COPIED, std::memory_order_release);
    }
    return w;
}

// ---- Completion ------------------------------------------------------------------------------------------------------

void Disk::end_dirty(std::uint64_t sector, std::uint64_t sectors, std::uint64_t seq) {
    if (state_ == BLKFERRY_STOPPED)
        return;
    mark(sector, sectors);
    if (seq != 0)
        gap(seq);
    else
        gap_next();
}

void Disk::end_record(const InFlight& w, End how) {
    blkferry_desc& d = desc(w.index);
    u64 first = 0;
    u64 past = 0;
    if (bf_ovl_leave(overlap_.get(), w.sector, w.sector + w.sectors, w.overlap, &first, &past) && how != End::cancelled) {
        count(BLKFERRY_C_OVERLAPS, 1);
        end_dirty(first, past - first, d.seq);
    }
    switch (how) {
        case End::done: count(BLKFERRY_C_DONE, 1); break;
        case End::cancelled:
            count(BLKFERRY_C_CANCELLED, 1);
            count(BLKFERRY_C_CANCELLED_SECTORS, w.sectors);
            break;
        case End::failed:
            count(BLKFERRY_C_FAILED, 1);
            end_dirty(w.sector, w.sectors, d.seq);
            break;
    }
    publish(d.state, static_cast<std::uint32_t>(how), std::memory_order_release);
}

void Disk::finish(const InFlight& w, End how) {
    if (w.kind == InFlight::Kind::none)
        return;
    std::unique_lock held(lock_);
    --inflight_[w.parity];
    if (w.kind == InFlight::Kind::ring) {
        end_record(w, how);
        // Pairs with Ring::arm(): need_wake set, then states read.
        std::atomic_thread_fence(std::memory_order_seq_cst);
        wake_pending_ |= std::atomic_ref<__u32>(cons().need_wake).load() != 0;
    } else {
        end_dirty(w.sector, w.sectors, 0);
    }
    tell(held);
}

Disk::Used Disk::used() {
    const std::scoped_lock held(lock_);
    (void)intake(UINT32_MAX);  // a bad tail is found again, and acted upon, by the next write
    return {ring_.data_head - ring_.data_tail, ring_.head - ring_.tail};
}

void Disk::unknown(std::uint64_t sector, std::uint64_t sectors) {
    std::unique_lock held(lock_);
    count(BLKFERRY_C_UNKNOWN, 1);
    end_dirty(sector, sectors, 0);
    tell(held);
}

// ---- Waking and telling ----------------------------------------------------------------------------------------------

void Disk::wake() {
    if (wake_)
        (void)::send(wake_.get(), "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/// Releases the lock, after waking the consumer, and passes the news on.
void Disk::tell(std::unique_lock<std::mutex>& held) {
    if (std::exchange(wake_pending_, false)) {
        wake();
        count(BLKFERRY_C_WAKEUPS, 1);
    }
    const std::uint64_t news = std::exchange(news_pending_, 0);
    const auto state = static_cast<std::uint32_t>(state_);
    const std::uint32_t flags = flags_;
    held.unlock();
    for (std::uint32_t e = 0; news >> e != 0; ++e)
        if (((news >> e) & 1) != 0)
            news_(e, state, flags);
}

Result<Disk::Opened> Disk::open_ring() {
    const std::scoped_lock held(lock_);
    if (state_ == BLKFERRY_STOPPED)
        return refuse(ENODEV, "the disk was detached");
    pollfd p{wake_.get(), 0, 0};
    if (wake_ && ::poll(&p, 1, 0) >= 0 && (p.revents & (POLLHUP | POLLERR)) == 0)
        return refuse(EBUSY, "another consumer has the ring open");
    std::array<int, 2> pair{-1, -1};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0)
        return fail_errno(errno, "cannot make a socket pair");
    Opened o;
    wake_ = Fd(pair[0]);
    o.poll = Fd(pair[1]);
    for (std::size_t i = 0; i < regions_.size(); ++i) {
        o.fds[i] = regions_[i].fd.get();
        o.bytes[i] = regions_[i].bytes;
    }
    return o;
}

}  // namespace blkferry::producer
