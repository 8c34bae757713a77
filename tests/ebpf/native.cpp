// SPDX-License-Identifier: Apache-2.0
// The programs in the kernel that runs this test, on a loop device: every block that a write changes is marked, whoever writes and
// however; a copy that follows the map equals the disk; "quiet" is never said while the copy differs.
//
// Exit code 77: not root, no loop device, or a kernel that takes no eBPF programs. usage: blkferry-ebpf-check [--load-only]
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <fcntl.h>
#include <functional>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <mutex>
#include <random>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

#include <fmt/format.h>

#include "capture/ebpf_tracker.hpp"
#include "capture/ring.hpp"

using namespace blkferry;
using namespace blkferry::capture;

namespace {

constexpr int skipped = 77;
constexpr std::uint64_t disk_bytes = 96ULL << 20;
constexpr std::uint64_t block_bytes = 4096;

std::unexpected<Error> expected(std::string what) {
    return fail(Errc::conflict, "expected: " + std::move(what));
}

/// A loop device over a file of its own; both are gone at the end.
class Loop {
public:
    static Result<std::unique_ptr<Loop>> make() {
        std::unique_ptr<Loop> l(new Loop);
        const char* dir = std::getenv("TMPDIR");
        l->file_ = fmt::format("{}/blkferry-ebpf-XXXXXX", dir != nullptr ? dir : "/var/tmp");
        l->backing_ = Fd(::mkostemp(l->file_.data(), O_CLOEXEC));
        if (!l->backing_ || ::ftruncate(l->backing_.get(), static_cast<off_t>(disk_bytes)) != 0)
            return fail_errno(errno, "cannot make a file for the disk");
        BLKFERRY_TRY_ASSIGN(const Fd control, open_file("/dev/loop-control", O_RDWR));
        for (int tries = 0; tries < 100; ++tries) {
            const int n = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
            if (n < 0)
                return fail_errno(errno, "no free loop device");
            l->path = fmt::format("/dev/loop{}", n);
            auto device = open_file(l->path, O_RDWR);
            loop_config config{};
            config.fd = static_cast<__u32>(l->backing_.get());
            config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
            if (device && ::ioctl(device->get(), LOOP_CONFIGURE, &config) == 0) {
                l->device = std::move(*device);
                return l;
            }
        }
        return fail(Errc::busy, "somebody else took every loop device");
    }
    ~Loop() {
        device.reset();  // the last one to close it clears it
        ::unlink(file_.c_str());
    }
    std::string path;
    Fd device;

private:
    Loop() = default;
    std::string file_;
    Fd backing_;
};

using Image = std::vector<std::byte>;

Result<Image> read_disk(const Loop& l) {
    Image image(disk_bytes);
    BLKFERRY_TRY_ASSIGN(const Fd fd, open_file(l.path, O_RDONLY | O_DIRECT));
    constexpr std::size_t step = 1U << 20;
    const std::unique_ptr<void, decltype(&std::free)> buffer(std::aligned_alloc(4096, step), &std::free);
    auto* bytes = static_cast<std::byte*>(buffer.get());
    for (std::uint64_t at = 0; at < disk_bytes; at += step) {
        BLKFERRY_TRY(read_full_at(fd.get(), {bytes, step}, at, l.path));
        std::copy_n(bytes, step, image.begin() + static_cast<std::ptrdiff_t>(at));
    }
    return image;
}

/// Follows the disk as the agent does: take the map, read what was in it.
class Copy {
public:
    static Result<std::unique_ptr<Copy>> make(Tracker& tracker, const Loop& loop) {
        std::unique_ptr<Copy> c(new Copy(tracker, loop));
        AttachRequest request;
        BLKFERRY_TRY_ASSIGN(request.dev, tracker.find_device(loop.path));
        BLKFERRY_TRY_ASSIGN(const DiskInfo info, tracker.attach(request));
        c->disk = info.disk;
        BLKFERRY_TRY_ASSIGN(auto memory, tracker.open_ring(info.disk));
        BLKFERRY_TRY_ASSIGN(auto ring, Ring::open(std::move(memory)));
        c->ring.emplace(std::move(ring));
        BLKFERRY_TRY_ASSIGN(c->fd_, open_file(loop.path, O_RDONLY | O_DIRECT));
        c->buffer_.reset(std::aligned_alloc(4096, 1U << 20));
        return c;
    }
    /// One round; true if it ended in a consistent mark. `rounds` counts, `blocks` is what the round read.
    Result<bool> round(const std::function<void()>& meanwhile = {}) {
        consume();
        BLKFERRY_TRY_ASSIGN(const std::uint64_t seq0, tracker_.resync_begin(disk));
        if (meanwhile)
            meanwhile();
        blocks = 0;
        Extent run;
        std::vector<Extent> done;
        for (SnapshotCursor cursor(*ring); cursor.next(run, 2048);) {
            auto* bytes = static_cast<std::byte*>(buffer_.get());
            const std::size_t n = run.count * sector_bytes;
            BLKFERRY_TRY(read_full_at(fd_.get(), {bytes, n}, run.sector * sector_bytes, "disk"));
            std::copy_n(bytes, n, image.begin() + static_cast<std::ptrdiff_t>(run.sector * sector_bytes));
            done.push_back(run);
            blocks += n / block_bytes;
        }
        BLKFERRY_TRY(tracker_.resync_clear(disk, done, seq0));
        const auto end = tracker_.resync_end(disk);
        if (!end && end.error().sys_errno != EAGAIN)
            return std::unexpected(end.error());
        if (end)
            mark = *end;
        return end.has_value() && ring->status().consistent_at(*end);
    }
    Result<void> settle() {
        for (int i = 0; i < 3000; ++i) {
            tracker_.observe();
            BLKFERRY_TRY_ASSIGN(const bool consistent, round());
            if (consistent)
                return {};
            ::usleep(10'000);
        }
        return expected("the disk comes to rest");
    }

    Image image = Image(disk_bytes);
    std::optional<Ring> ring;
    std::uint32_t disk = 0;
    std::uint64_t blocks = 0;
    std::uint64_t mark = 0;

private:
    Copy(Tracker& tracker, const Loop&) : tracker_(tracker) {}
    void consume() {
        CapturedOp op;
        while (ring->refresh() && ring->peek(op) == Ring::Peek::ready)
            ring->advance();
        (void)ring->ack(ring->cursor());
    }
    Tracker& tracker_;
    Fd fd_;
    std::unique_ptr<void, decltype(&std::free)> buffer_{nullptr, &std::free};
};

Result<void> equal(const Loop& l, const Copy& c, std::string_view what) {
    BLKFERRY_TRY_ASSIGN(const Image now, read_disk(l));
    std::uint64_t differ = 0;
    std::uint64_t first = 0;
    for (std::uint64_t b = disk_bytes / block_bytes; b-- > 0;)
        if (!std::equal(&now[b * block_bytes], &now[b * block_bytes] + block_bytes, &c.image[b * block_bytes])) {
            ++differ;
            first = b;
        }
    if (differ != 0)
        return expected(fmt::format("the copy equals the disk {}; {} blocks differ, first {}", what, differ, first));
    return {};
}

Result<void> shell(const std::string& command) {
    const int status = std::system((command + " >/dev/null 2>&1").c_str());
    if (status != 0)
        return fail(Errc::io, fmt::format("status {} of: {}", status, command));
    return {};
}

std::string fio(const Loop& l, std::string_view options) {
    static std::uint64_t seed = 0;
    return fmt::format("fio --name=w --filename={} --size={} --bs=4k --randrepeat=0 --randseed={} {}", l.path, disk_bytes, ++seed, options);
}

/// What each way of writing changed is marked, nothing is left out, and little more than was written.
Result<void> every_write_is_marked(const Loop& l, Copy& c) {
    struct Case {
        const char* name;
        std::string command;
    };
    const std::vector<Case> cases = {
        {"O_DIRECT, random", fio(l, "--rw=randwrite --direct=1 --ioengine=libaio --iodepth=32 --io_size=8m")},
        {"io_uring, 64 KiB", fio(l, "--rw=randwrite --direct=1 --ioengine=io_uring --iodepth=16 --bs=64k --io_size=16m")},
        {"512 bytes", fio(l, "--rw=randwrite --direct=1 --ioengine=libaio --iodepth=8 --bs=512 --io_size=256k")},
        {"1 MiB, sequential", fio(l, "--rw=write --direct=1 --ioengine=libaio --iodepth=4 --bs=1m --io_size=32m")},
        {"buffered with fsync", fio(l, "--rw=randwrite --direct=0 --ioengine=psync --io_size=4m --end_fsync=1")},
        {"mapped", fio(l, "--rw=randwrite --ioengine=mmap --io_size=4m --end_fsync=1")},
        {"O_SYNC", fio(l, "--rw=randwrite --direct=1 --sync=1 --ioengine=psync --io_size=1m")},
        {"discard", fio(l, "--rw=randtrim --direct=1 --ioengine=psync --bs=64k --io_size=2m")},
        {"discard of the whole disk", fmt::format("blkdiscard {}", l.path)},
        {"write zeroes", fmt::format("blkdiscard -z -o 8388608 -l 33554432 {}", l.path)},
        {"ext4 with files", fmt::format("mkfs.ext4 -q -F {0} && d=$(mktemp -d) && mount {0} $d && cp -r /usr/include/linux $d/ && "
                                        "rm -r $d/linux/netfilter && fstrim $d; umount $d; rmdir $d", l.path)},
    };
    for (const Case& k : cases) {
        BLKFERRY_TRY(shell(k.command));
        BLKFERRY_TRY(c.settle());
        BLKFERRY_TRY(equal(l, c, fmt::format("after {}", k.name)));
        fmt::print("  {}: equal\n", k.name);
    }
    return {};
}

/// One block written is one block marked.
Result<void> marks_are_exact(const Loop& l, Copy& c) {
    BLKFERRY_TRY_ASSIGN(const Fd fd, open_file(l.path, O_WRONLY | O_DIRECT));
    const std::unique_ptr<void, decltype(&std::free)> buffer(std::aligned_alloc(4096, 8192), &std::free);
    auto* bytes = static_cast<std::byte*>(buffer.get());
    std::fill_n(bytes, 8192, std::byte{0x5a});
    const auto marks = [&](std::uint64_t at, std::size_t n) -> Result<std::uint64_t> {
        BLKFERRY_TRY(write_full_at(fd.get(), {bytes, n}, at, l.path));
        BLKFERRY_TRY(c.round());
        return c.blocks;
    };
    BLKFERRY_TRY(c.settle());
    BLKFERRY_TRY_ASSIGN(const std::uint64_t one, marks(5 * block_bytes, 4096));
    BLKFERRY_TRY_ASSIGN(const std::uint64_t part, marks(9 * block_bytes + 512, 512));
    BLKFERRY_TRY_ASSIGN(const std::uint64_t across, marks(20 * block_bytes - 512, 1024));
    BLKFERRY_TRY_ASSIGN(const std::uint64_t end, marks(disk_bytes - 512, 512));
    if (one != 1 || part != 1 || across != 2 || end != 1)
        return expected(fmt::format("1, 1, 2 and 1 blocks are marked, not {}, {}, {} and {}", one, part, across, end));
    return {};
}

/// Writers and rounds race. A write that is under way when the map is taken must turn up in a later round; and whenever a
/// mark is called consistent, the copy is the disk.
Result<void> rounds_race_with_writers(const Loop& l, Tracker& tracker, Copy& c, std::uint64_t seconds) {
    std::atomic<bool> stop{false};
    std::mutex gate;  // a writer holds it for a burst; the check holds all of them back
    std::atomic<std::uint64_t> writes{0};
    const auto writer = [&](std::uint64_t seed, bool direct) {
        std::mt19937_64 rng(seed);
        const auto fd = open_file(l.path, direct ? O_WRONLY | O_DIRECT : O_WRONLY);
        const std::unique_ptr<void, decltype(&std::free)> buffer(std::aligned_alloc(4096, 64U << 10), &std::free);
        auto* bytes = static_cast<std::uint64_t*>(buffer.get());
        while (!stop) {
            {
                const std::scoped_lock held(gate);
                for (std::uint64_t burst = rng() % 40; burst-- > 0 && !stop;) {
                    const std::size_t n = direct ? 512U << (rng() % 8) : 1 + rng() % 20000;
                    for (std::size_t i = 0; i * 8 < n; ++i)
                        bytes[i] = rng();
                    std::uint64_t at = rng() % (disk_bytes - n);
                    if (direct)
                        at &= ~511ULL;
                    (void)!::pwrite(fd->get(), bytes, n, static_cast<off_t>(at));
                    ++writes;
                }
            }
            ::usleep(static_cast<useconds_t>(rng() % 3000));
        }
    };
    std::vector<std::jthread> writers;
    for (std::uint64_t i = 0; i < 4; ++i)
        writers.emplace_back(writer, i + 1, i != 3);
    struct Stopper {
        std::atomic<bool>& flag;
        ~Stopper() { flag = true; }
    } stopper{stop};  // before the threads are joined, on every way out
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
    std::uint64_t rounds = 0;
    std::uint64_t checked = 0;
    const auto enough = [&] {
        const auto now = std::chrono::steady_clock::now();
        return now >= until && (checked >= 3 || now >= until + std::chrono::seconds(120));
    };
    while (!enough()) {
        BLKFERRY_TRY_ASSIGN(bool consistent, c.round());
        ++rounds;
        if (rounds % 8 == 0) {
            // Now and then the writers wait, so that rounds become consistent in the middle of it all.
            const std::scoped_lock held(gate);
            BLKFERRY_TRY_ASSIGN(consistent, c.round());
            if (!consistent)
                continue;  // the buffered writer's pages are on their way
            const std::uint64_t mark = c.mark;
            BLKFERRY_TRY_ASSIGN(const Image now, read_disk(l));
            // Write-back may have begun behind the mark: then this look says nothing about it.
            tracker.observe();
            if (c.ring->status().gap_seq != 0)
                continue;
            ++checked;
            if (now != c.image)
                return expected(fmt::format("mark {} is the disk (round {})", mark, rounds));
        }
    }
    stop = true;
    writers.clear();
    BLKFERRY_TRY(shell(fmt::format("sync {}", l.path)));
    BLKFERRY_TRY(c.settle());
    BLKFERRY_TRY(equal(l, c, "after the race"));
    fmt::print("  {} writes, {} rounds, {} consistent marks compared\n", writes.load(), rounds, checked);
    if (checked == 0)
        return expected("some marks were consistent");
    return {};
}

/// The counters that the agent's self-check compares with the disk's own.
Result<void> counters_follow_the_disk(const Loop& l, Tracker& tracker, Copy& c) {
    BLKFERRY_TRY(c.settle());
    const auto before = tracker.disk_get(c.disk);
    BLKFERRY_TRY(shell(fio(l, "--rw=randwrite --direct=1 --ioengine=libaio --iodepth=32 --io_size=8m")));
    BLKFERRY_TRY(c.settle());
    const auto after = tracker.disk_get(c.disk);
    if (!before || !after)
        return expected("the disk is described");
    const std::uint64_t sectors = after->counter(BLKFERRY_C_DIRTY_SECTORS) - before->counter(BLKFERRY_C_DIRTY_SECTORS);
    if (sectors != (8U << 20) / sector_bytes || after->writes != 0U)
        return expected(fmt::format("16384 sectors are counted and none in flight, not {} and {}", sectors, *after->writes));
    for (const auto which : {BLKFERRY_C_INFLIGHT_FULL, BLKFERRY_C_PASSTHROUGH, BLKFERRY_C_BEYOND_END, BLKFERRY_C_REUSED})
        if (after->counter(which) != 0)
            return expected(fmt::format("counter {} is 0, not {}", static_cast<int>(which), after->counter(which)));
    return {};
}

Result<void> refusals(Tracker& tracker, const Copy& c) {
    BLKFERRY_TRY_ASSIGN(const DiskInfo d, tracker.disk_get(c.disk));
    AttachRequest again;
    again.dev = d.dev;
    if (const auto r = tracker.attach(again); r || r.error().sys_errno != EEXIST)
        return expected("a second attach is EEXIST");
    again.dev = device_number(4095, 77);
    if (const auto r = tracker.attach(again); r || r.error().sys_errno != ENODEV)
        return expected("a device that is not there is ENODEV");
    if (const auto r = tracker.disk_get(200); r || r.error().sys_errno != ENODEV)
        return expected("an unknown disk is ENODEV");
    if (const auto r = tracker.find_device("/dev/null"); r)
        return expected("/dev/null is no block device");
    if (const auto r = tracker.seq_floor(99); r || r.error().sys_errno != EBUSY)
        return expected("numbers are not raised under a disk in use");
    return {};
}

Result<int> run(bool load_only) {
    if (::geteuid() != 0 && !load_only) {
        fmt::print("SKIP: not root\n");
        return skipped;
    }
    auto opened = EbpfTracker::open();
    if (!opened) {
        fmt::print("{}: {}\n", load_only ? "refused" : "SKIP", opened.error().text);
        return load_only ? 1 : skipped;
    }
    if (load_only)
        return 0;
    auto loop = Loop::make();
    if (!loop) {
        fmt::print("SKIP: {}\n", loop.error().text);
        return skipped;
    }
    Tracker& tracker = **opened;
    const Loop& l = **loop;
    BLKFERRY_TRY_ASSIGN(const auto copy, Copy::make(tracker, l));
    Copy& c = *copy;
    const auto step = [](const char* name, const Result<void>& r) -> Result<void> {
        if (!r)
            return std::unexpected(Error(r.error()).with(name));
        fmt::print("ok: {}\n", name);
        return {};
    };
    BLKFERRY_TRY(step("the first round holds the whole disk", c.settle()));
    BLKFERRY_TRY(step("refusals", refusals(tracker, c)));
    BLKFERRY_TRY(step("marks are exact", marks_are_exact(l, c)));
    BLKFERRY_TRY(step("counters follow the disk", counters_follow_the_disk(l, tracker, c)));
    BLKFERRY_TRY(step("every write is marked", every_write_is_marked(l, c)));
    BLKFERRY_TRY(step("rounds race with writers", rounds_race_with_writers(l, tracker, c, 15)));
    BLKFERRY_TRY_ASSIGN(const DiskInfo d, tracker.disk_get(c.disk));
    fmt::print("unseen ends: {}; runs skipped: {}\n", d.counter(BLKFERRY_C_REUSED), (*opened)->skipped_text());
    BLKFERRY_TRY(tracker.detach(c.disk));
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    const auto r = run(argc == 2 && std::string_view(argv[1]) == "--load-only");
    if (!r)
        fmt::print(stderr, "blkferry-ebpf-check: {}\n", r.error().text);
    return r ? *r : 1;
}
