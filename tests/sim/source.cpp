// SPDX-License-Identifier: Apache-2.0
#include "source.hpp"

#include <algorithm>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

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
    const std::size_t count = w.one_in(20) ? 8 : w.between(1, 3);
    for (std::size_t i = 0; i < count; ++i) {
        Drive d;
        d.path = (dir / fmt::format("disk{}", i)).string();
        d.bytes = w.between(32, 128) * 4096;
        std::vector<std::byte> begin(d.bytes);
        for (std::uint64_t at = 0; at < d.bytes; at += 4096)
            if (w.below(3) != 0)
                std::fill_n(begin.begin() + static_cast<std::ptrdiff_t>(at), 4096, static_cast<std::byte>(w.below(256)));
        const Fd file = must(open_file(d.path, O_RDWR | O_CREAT | O_TRUNC));
        must(write_full_at(file.get(), begin, 0, d.path));
        d.dev = must(w.machine->add_device(d.path));
        disks_.push_back(std::move(d));
    }
    gap_us_ = std::uint64_t{50} << w.below(10);
    sectors_max_ = std::uint64_t{1} << w.between(1, 6);
    mishaps_ = w.below(2) == 0;
    flush_one_in_ = w.below(2) == 0 ? 0 : w.between(2, 40);
    begin_life();
    life().floor = 0;
}

void Source::begin_life() {
    Life l;
    for (std::size_t i = 0; i < disks_.size(); ++i)
        l.begin.push_back(medium(i));
    lives_.push_back(std::move(l));
    last_seq_ = 0;
}

void Source::session_began(std::uint64_t durable_mark) {
    if (!life().floor)
        life().floor = durable_mark;
}

bool Source::has_all(std::uint64_t mark) const noexcept {
    const Life& l = lives_.back();
    return l.floor && mark >= last_seq_ && (lives_.size() == 1 || mark > *l.floor);
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
        if (running_ && (!frozen_ || world_.mutation == Mutation::write_in_freeze) && flying_.size() < flying_max)
            write_one();
        next();
    });
}

/// Writes that are in flight together do not overlap: which of two wins on the medium is nobody's to say.
void Source::write_one() {
    const std::size_t disk = world_.below(disks_.size());
    Drive& d = disks_[disk];
    const std::uint64_t sectors_all = d.bytes / sector_bytes;
    auto op = capture::OpKind::write;
    if (world_.one_in(8))
        op = world_.below(2) == 0 ? capture::OpKind::zeroes : capture::OpKind::discard;
    std::uint64_t sectors = world_.between(1, sectors_max_);
    if (op != capture::OpKind::write && world_.one_in(4))
        sectors = world_.between(1, sectors_all);
    if (world_.below(2) == 0)
        sectors = std::min((sectors + 7) / 8 * 8, sectors_all);
    std::uint64_t sector = world_.below(sectors_all - sectors + 1);
    if (sectors % 8 == 0)
        sector = sector / 8 * 8;
    for (const Flying& f : flying_)
        if (f.disk == disk && sector < f.write.sector + f.write.sectors && f.write.sector < sector + sectors)
            return;
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
    if (op == capture::OpKind::discard && world_.mutation == Mutation::lose_discard)
        placed.write = {.op = op, .dev = d.dev, .sector = sector, .sectors = sectors, .data = {}, .disk = {}, .inflight = {}};
    else
        placed.write = must(world_.machine->submit(op, d.dev, sector, sectors, captured));
    placed.tracked = placed.write.disk != nullptr;
    placed.write.data = payload ? std::span<const std::byte>(placed.data) : std::span<const std::byte>();
    // A write that drew no number went to the dirty map: it belongs to what comes next.
    const std::uint64_t after = world_.machine->info().seq;
    const std::uint64_t seq = after > before ? after : after + 1;
    last_seq_ = std::max(last_seq_, seq);
    world_.trace("write seq={} disk={} sector={}+{} op={}", seq, disk, sector, sectors,
                 payload ? "write" : op == capture::OpKind::zeroes ? "zeroes" : "discard");
    auto& history = life().history;
    placed.record = history.size();
    BLKFERRY_ASSERT(history.empty() || history.back().seq <= seq);
    history.push_back({seq, disk, sector, placed.data});
    ++writes_;
    auto how = producer::End::done;
    if (mishaps_ && world_.one_in(20))
        how = world_.below(2) == 0 ? producer::End::failed : producer::End::cancelled;
    const std::uint64_t reaches = world_.between(1, 300) * us;
    const auto it = std::prev(flying_.end());
    const std::size_t life_now = lives_.size();
    world_.in(reaches, [this, it, how, life_now] {
        if (life_now == lives_.size() &&
            (how == producer::End::done || (how == producer::End::failed && world_.below(2) == 0)))
            execute(*it);
    });
    world_.in(reaches + (world_.one_in(30) ? world_.between(1, 600) * ms : world_.between(1, 500) * us),
              [this, it, how, life_now] {
                  if (life_now == lives_.size())
                      land(it, how);
              });
}

/// The medium takes it; what it held before may come back until the next flush.
void Source::execute(Flying& f) {
    f.executed = true;
    if (flush_one_in_ != 0) {
        const std::vector<std::byte> old = read(f.disk, f.write.sector, f.write.sectors);
        for (std::uint64_t i = 0; i < f.write.sectors; ++i) {
            const auto [it, fresh] = disks_[f.disk].unflushed.try_emplace(f.write.sector + i);
            if (fresh)
                std::memcpy(it->second.data(), old.data() + i * sector_bytes, sector_bytes);
        }
    }
    must(world_.machine->execute(f.write));
}

void Source::land(std::list<Flying>::iterator f, producer::End how) {
    world_.machine->finish(f->write, how);
    if (how != producer::End::done)
        life().history[f->record].data = read(f->disk, f->write.sector, f->write.sectors);
    if (!f->tracked && !world_.machine->disks().empty() && world_.mutation != Mutation::lose_discard) {
        // Its disk is tracked by now, and calls the place dirty from here on.
        const std::uint64_t seq = std::max(world_.machine->info().seq + 1, last_seq_);
        life().vague.push_back({f->disk, f->write.sector, f->write.sectors, seq});
        life().history.push_back({seq, f->disk, f->write.sector, read(f->disk, f->write.sector, f->write.sectors)});
        last_seq_ = seq;
    }
    flying_.erase(f);
    if (flush_one_in_ != 0 && world_.one_in(flush_one_in_))
        for (Drive& d : disks_)
            d.unflushed.clear();
}

void Source::put(std::size_t disk, std::uint64_t sector, std::span<const std::byte> data) {
    const Fd file = must(open_file(disks_.at(disk).path, O_RDWR));
    must(write_full_at(file.get(), data, sector * sector_bytes, disks_.at(disk).path));
}

void Source::cut_power(std::size_t disk) {
    const std::uint64_t mode = world_.below(4);  // all of it lost, all of it there, or sector by sector
    for (const auto& [sector, old] : disks_[disk].unflushed)
        if (mode == 0 || (mode > 1 && world_.below(2) == 0))
            put(disk, sector, old);
}

void Source::reboot(bool power_cut) {
    // No ring waits for those that were not tracked: nobody knows whether they had happened when a point was made.
    for (const Flying& f : flying_)
        if (!f.tracked)
            life().vague.push_back({f.disk, f.write.sector, f.write.sectors, UINT64_MAX});
    for (Flying& f : flying_)
        if (!f.executed && world_.below(2) == 0) {
            const std::uint64_t part = world_.between(1, f.write.sectors);
            put(f.disk, f.write.sector, std::span(f.data).first(part * sector_bytes));
        }
    const bool clean = world_.mutation == Mutation::assume_clean;
    if (clean)
        for (Flying& f : flying_)
            world_.machine->finish(f.write, producer::End::done);
    flying_.clear();
    frozen_ = false;
    if (!clean)
        world_.machine = std::make_unique<producer::Machine>();
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        Drive& d = disks_[i];
        if (power_cut)
            cut_power(i);
        d.unflushed.clear();
        if (clean)
            continue;
        if (world_.one_in(8)) {
            d.bytes += world_.between(1, 40) * 4096;
            BLKFERRY_ASSERT(::truncate(d.path.c_str(), static_cast<off_t>(d.bytes)) == 0);
        }
        d.dev = must(world_.machine->add_device(d.path));
    }
    begin_life();
    if (clean)
        life().floor = world_.machine->info().seq;
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

std::size_t Source::life_of(std::uint64_t mark) const noexcept {
    if (mark == UINT64_MAX)
        return lives_.size() - 1;
    std::size_t life = 0;
    for (std::size_t i = 1; i < lives_.size(); ++i)
        if (lives_[i].floor && *lives_[i].floor < mark)
            life = i;
    return life;
}

void Source::Replay::enter(std::size_t life) {
    life_ = life;
    image_ = source_.lives_[life].begin[disk_];
    next_ = 0;
}

const std::vector<std::byte>& Source::Replay::at(std::uint64_t mark) {
    if (const std::size_t life = source_.life_of(mark); life != life_)
        enter(life);
    const auto& history = source_.lives_[life_].history;
    for (; next_ < history.size() && history[next_].seq <= mark; ++next_) {
        const Done& d = history[next_];
        if (d.disk == disk_)
            std::memcpy(image_.data() + d.sector * sector_bytes, d.data.data(), d.data.size());
    }
    return image_;
}

std::optional<std::uint64_t> Source::Replay::first_difference(std::uint64_t mark, std::span<const std::byte> got) {
    const auto& want = at(mark);
    if (got.size() != want.size())
        return std::min(got.size(), want.size()) / sector_bytes;
    if (std::memcmp(got.data(), want.data(), got.size()) == 0)
        return std::nullopt;
    const auto vague = [&](std::uint64_t sector) {
        return std::ranges::any_of(source_.lives_[life_].vague, [&](const Vague& v) {
            return v.disk == disk_ && mark < v.until && sector >= v.sector && sector < v.sector + v.sectors;
        });
    };
    for (std::uint64_t s = 0; s * sector_bytes < got.size(); ++s)
        if (std::memcmp(got.data() + s * sector_bytes, want.data() + s * sector_bytes, sector_bytes) != 0 && !vague(s))
            return s;
    return std::nullopt;
}

}  // namespace blkferry::sim
