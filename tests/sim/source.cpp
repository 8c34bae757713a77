// SPDX-License-Identifier: Apache-2.0
#include "source.hpp"

#include <algorithm>
#include <cstring>
#include <fcntl.h>

#include "base/fd.hpp"
#include "extent/extent.hpp"

namespace blkferry::sim {

namespace {
constexpr std::size_t flying_max = 8;

template <class T>
T must(Result<T> r) {
    BLKFERRY_ASSERT(r.has_value());
    if constexpr (!std::is_void_v<T>)
        return std::move(*r);
}
}  // namespace

Source::Source(World& w, const std::filesystem::path& dir) : world_(w) {
    const std::size_t count = w.between(1, 3);
    for (std::size_t i = 0; i < count; ++i) {
        Drive d;
        d.path = (dir / fmt::format("disk{}", i)).string();
        d.bytes = w.between(32, 128) * 4096;
        d.begin.resize(d.bytes);
        for (std::uint64_t at = 0; at < d.bytes; at += 4096)
            if (w.below(3) != 0)
                std::fill_n(d.begin.begin() + static_cast<std::ptrdiff_t>(at), 4096, static_cast<std::byte>(w.below(256)));
        const Fd file = must(open_file(d.path, O_RDWR | O_CREAT | O_TRUNC));
        must(write_full_at(file.get(), d.begin, 0, d.path));
        d.dev = must(w.machine->add_device(d.path));
        disks_.push_back(std::move(d));
    }
    gap_us_ = std::uint64_t{50} << w.below(10);
    sectors_max_ = std::uint64_t{1} << w.between(1, 6);
    mishaps_ = w.below(2) == 0;
}

void Source::start() {
    running_ = true;
    next();
}

void Source::next() {
    if (!running_)
        return;
    const std::uint64_t wait = world_.one_in(30) ? world_.between(10, 400) * ms : world_.between(1, 2 * gap_us_) * us;
    world_.in(wait, [this] {
        if (running_ && flying_.size() < flying_max)
            write_one();
        next();
    });
}

/// Writes that are in flight together do not overlap: which of two wins on the medium is nobody's to say.
void Source::write_one() {
    const std::size_t disk = world_.below(disks_.size());
    const Drive& d = disks_[disk];
    const std::uint64_t sectors_all = d.bytes / sector_bytes;
    std::uint64_t sectors = world_.between(1, sectors_max_);
    if (world_.below(2) == 0)
        sectors = (sectors + 7) / 8 * 8;
    std::uint64_t sector = world_.below(sectors_all - sectors + 1);
    if (sectors % 8 == 0)
        sector = sector / 8 * 8;
    for (const Flying& f : flying_)
        if (f.disk == disk && sector < f.write.sector + f.write.sectors && f.write.sector < sector + sectors)
            return;
    const auto op = world_.one_in(8) ? capture::OpKind::zeroes : capture::OpKind::write;
    Flying f;
    f.disk = disk;
    f.data.assign(sectors * sector_bytes, std::byte{0});
    if (op == capture::OpKind::write) {
        const std::uint64_t stamp = world_.random();
        for (std::size_t at = 0; at < f.data.size(); at += 8)
            std::memcpy(f.data.data() + at, &stamp, 8);
    }
    const std::uint64_t before = world_.machine->info().seq;
    auto& placed = flying_.emplace_back(std::move(f));
    const bool payload = op == capture::OpKind::write;
    std::vector<std::byte> captured = payload ? placed.data : std::vector<std::byte>();
    if (payload && world_.mutation == Mutation::wrong_payload && world_.one_in(50))
        captured.back() ^= std::byte{1};
    placed.write = must(world_.machine->submit(op, d.dev, sector, sectors, captured));
    placed.write.data = payload ? std::span<const std::byte>(placed.data) : std::span<const std::byte>();
    // A write that drew no number went to the dirty map: it belongs to what comes next.
    const std::uint64_t after = world_.machine->info().seq;
    const std::uint64_t seq = after > before ? after : after + 1;
    last_seq_ = std::max(last_seq_, seq);
    world_.trace("write seq={} disk={} sector={}+{} op={}", seq, disk, sector, sectors,
                 payload ? "write" : "zeroes");
    placed.record = history_.size();
    BLKFERRY_ASSERT(history_.empty() || history_.back().seq <= seq);
    history_.push_back({seq, disk, sector, placed.data});
    auto how = producer::End::done;
    if (mishaps_ && world_.one_in(20))
        how = world_.below(2) == 0 ? producer::End::failed : producer::End::cancelled;
    const std::uint64_t reaches = world_.between(1, 300) * us;
    const auto it = std::prev(flying_.end());
    world_.in(reaches, [this, it, how] {
        if (how == producer::End::done || (how == producer::End::failed && world_.below(2) == 0))
            must(world_.machine->execute(it->write));
    });
    world_.in(reaches + (world_.one_in(30) ? world_.between(1, 600) * ms : world_.between(1, 500) * us),
              [this, it, how] { land(it, how); });
}

void Source::land(std::list<Flying>::iterator f, producer::End how) {
    world_.machine->finish(f->write, how);
    if (how != producer::End::done)
        history_[f->record].data = read(f->disk, f->write.sector, f->write.sectors);
    flying_.erase(f);
}

std::vector<std::byte> Source::read(std::size_t disk, std::uint64_t sector, std::uint64_t sectors) const {
    std::vector<std::byte> out(sectors * sector_bytes);
    const Fd file = must(open_file(disks_.at(disk).path, O_RDONLY));
    must(read_full_at(file.get(), out, sector * sector_bytes, disks_.at(disk).path));
    return out;
}

std::vector<std::byte> Source::medium(std::size_t disk) const {
    return read(disk, 0, disks_.at(disk).bytes / sector_bytes);
}

const std::vector<std::byte>& Source::Replay::at(std::uint64_t mark) {
    const auto& history = source_.history_;
    for (; next_ < history.size() && history[next_].seq <= mark; ++next_) {
        const Done& d = history[next_];
        if (d.disk == disk_)
            std::memcpy(image_.data() + d.sector * sector_bytes, d.data.data(), d.data.size());
    }
    return image_;
}

}  // namespace blkferry::sim
