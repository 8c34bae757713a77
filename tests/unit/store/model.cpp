// SPDX-License-Identifier: Apache-2.0
#include "model.hpp"

#include <algorithm>
#include <cstring>

namespace blkferry::test {

using proto::ExtentKind;
using proto::FrameType;

namespace {
Uuid some_uuid(std::mt19937_64& random) {
    Uuid u;
    for (auto& b : u.bytes)
        b = static_cast<std::uint8_t>(random());
    u.bytes[6] = static_cast<std::uint8_t>((u.bytes[6] & 0x0F) | 0x40);
    u.bytes[8] = static_cast<std::uint8_t>((u.bytes[8] & 0x3F) | 0x80);
    return u;
}
}  // namespace

Model::Model(std::uint64_t seed, std::size_t disks, std::uint64_t disk_sectors)
    : random_(seed), source_id_(some_uuid(random_)), load_id_(some_uuid(random_)), disk_sectors_(disk_sectors) {
    for (std::size_t i = 0; i < disks; ++i) {
        Disk d;
        d.info.slot = static_cast<std::uint16_t>(i * 3);
        d.info.disk_id = some_uuid(random_);
        d.info.name = "vd" + std::string(1, static_cast<char>('a' + i));
        d.info.identity = "serial-" + std::to_string(i);
        d.info.sectors = disk_sectors - i * 8;
        d.info.attach_id = some_uuid(random_);
        d.content.resize(d.info.sectors * sector_bytes);
        disks_.push_back(std::move(d));
        Disk& made = disks_.back();
        for (int n = 0; n < 20; ++n)
            fill(made, some_extent(300));
        made.dirty.insert({0, made.info.sectors});
    }
}

proto::Hello Model::hello() const {
    proto::Hello h;
    h.agent_version = "model";
    h.source = "web1";
    h.source_id = source_id_;
    h.load_id = load_id_;
    for (const Disk& d : disks_)
        h.disks.push_back(d.info);
    return h;
}

Extent Model::some_extent(std::uint64_t max) {
    const std::uint64_t limit = disk_sectors_ - disks_.size() * 8 - 8;
    Extent e{random(limit), 1 + random(max)};
    if (random(4) == 0)
        e = {e.sector / 8 * 8, (e.count + 7) / 8 * 8};
    e.count = std::min(e.count, limit - e.sector);
    return {e.sector, std::max<std::uint64_t>(e.count, 1)};
}

void Model::fill(Disk& d, Extent e) {
    std::byte* p = d.content.data() + e.sector * sector_bytes;
    const std::uint64_t tag = random_();
    for (std::uint64_t i = 0; i < e.count * sector_bytes; i += 8) {
        const std::uint64_t v = tag + i;
        std::memcpy(p + i, &v, 8);
    }
}

/// One captured operation; inside of a batch extents are disjoint, as folding leaves them.
void Model::capture(Disk& d, std::vector<Entry>& out, ExtentSet& taken) {
    const Extent e = some_extent(random(10) == 0 ? 1200 : 40);
    ++seq_;
    const std::uint64_t kind = random(10);
    std::byte* p = d.content.data() + e.sector * sector_bytes;
    if (kind < 7)
        fill(d, e);
    else
        std::memset(p, 0, e.count * sector_bytes);
    for (const Extent& c : taken.common(e)) {  // folded: the older part goes
        std::vector<Entry> kept;
        for (Entry& old : out) {
            if (old.entry.slot != d.info.slot || old.entry.extent.end() <= c.sector || c.end() <= old.entry.extent.sector) {
                kept.push_back(std::move(old));
                continue;
            }
            ExtentSet rest;
            rest.insert(old.entry.extent);
            rest.erase(c);
            for (const Extent& r : rest.list()) {
                Entry piece{old.entry, {}};
                piece.entry.extent = r;
                if (!old.data.empty()) {
                    const auto from = static_cast<std::ptrdiff_t>((r.sector - old.entry.extent.sector) * sector_bytes);
                    piece.data.assign(old.data.begin() + from,
                                      old.data.begin() + from + static_cast<std::ptrdiff_t>(r.count * sector_bytes));
                }
                kept.push_back(std::move(piece));
            }
        }
        out = std::move(kept);
    }
    taken.insert(e);
    if (d.state == State::epoch || d.state == State::ending)
        d.captured.insert(e);
    Entry entry{{d.info.slot, kind < 7 ? ExtentKind::data : kind < 9 ? ExtentKind::zero : ExtentKind::discard, e}, {}};
    if (kind < 7)
        entry.data.assign(p, p + e.count * sector_bytes);
    out.push_back(std::move(entry));
}

void Model::ship_resync(Disk& d, std::vector<Entry>& out) {
    for (int n = 0; n < 6 && !d.left.empty(); ++n) {
        const auto runs = d.left.list();
        Extent e = runs[random(runs.size())];
        const std::uint64_t skip = random(3) == 0 ? random(e.count) : 0;
        e = {e.sector + skip, std::min<std::uint64_t>(e.count - skip, 1 + random(600))};
        d.left.erase(e);
        const std::byte* p = d.content.data() + e.sector * sector_bytes;
        Entry entry{{d.info.slot, ExtentKind::resync_data, e}, Bytes(p, p + e.count * sector_bytes)};
        for (const Extent& c : d.captured.common(e))
            for (std::uint64_t i = (c.sector - e.sector) * sector_bytes; i < (c.end() - e.sector) * sector_bytes; ++i)
                entry.data[i] = static_cast<std::byte>(0xEE);
        if (std::ranges::all_of(entry.data, [](std::byte b) { return b == std::byte{0}; }))
            entry = {{d.info.slot, ExtentKind::resync_zero, e}, {}};
        out.push_back(std::move(entry));
    }
}

void Model::add_frame(ModelBatch& b, FrameType type, const Bytes& body) {
    Bytes frame;
    proto::encode_frame(type, b.number, static_cast<std::uint32_t>(b.frames.size()), body,
                        random(2) == 0 ? &lz4_ : nullptr, frame);
    b.frames.push_back(std::move(frame));
}

void Model::add_extents(ModelBatch& b, std::vector<Entry>& entries) {
    std::size_t i = 0;
    while (i < entries.size()) {
        std::vector<proto::ExtentEntry> head;
        Bytes payload;
        const std::size_t most = 1 + random(12);
        for (; i < entries.size() && head.size() < most && payload.size() + entries[i].data.size() < 900'000; ++i) {
            head.push_back(entries[i].entry);
            payload.insert(payload.end(), entries[i].data.begin(), entries[i].data.end());
        }
        Bytes body;
        proto::encode_extents_head(head, body);
        body.insert(body.end(), payload.begin(), payload.end());
        add_frame(b, FrameType::extents, body);
    }
}

ModelBatch Model::next_batch() {
    ModelBatch b;
    b.number = ++number_;
    const auto emit = [&](FrameType type, const auto& m) {
        Bytes body;
        encode(m, body);
        add_frame(b, type, body);
    };
    std::vector<Entry> captured;
    std::vector<Entry> resync;
    std::vector<proto::EpochBegin> begins;
    std::vector<proto::EpochEnd> ends;
    const std::uint64_t prev_mark = mark_;
    const bool idle = random(6) == 0;
    std::vector<ExtentSet> taken(disks_.size());
    for (Disk& d : disks_)
        if (!idle && (d.state == State::gap || (d.state == State::epoch && d.fresh_gap)) && random(3) == 0) {
            ++seq_;
            // What an abandoned epoch has not shipped stays dirty.
            for (const Extent& e : d.left.list())
                d.dirty.insert(e);
            if (d.state == State::epoch && random(2) == 0)
                d.kind = proto::EpochKind::gap;  // goes on with what the abandoned one left
            d.left = d.dirty;
            d.dirty.clear();
            d.captured.clear();
            d.fresh_gap = false;
            SetDigest digest;
            digest.add(0, d.left);
            d.epoch = {d.info.slot, d.kind, 12, prev_mark, d.left.sectors(), digest.value()};
            d.state = State::epoch;
            begins.push_back(d.epoch);
        }
    for (std::uint64_t n = idle ? 0 : random(14); n > 0; --n) {
        const std::size_t i = random(disks_.size());
        if (disks_[i].state == State::gap)
            continue;  // no ring: the module would mark it dirty
        capture(disks_[i], captured, taken[i]);
    }
    for (Disk& d : disks_)
        if (d.state == State::epoch) {
            ship_resync(d, resync);
            if (d.left.empty() && random(2) == 0) {
                ends.push_back({d.info.slot, d.epoch.seq0, d.epoch.sectors, d.epoch.digest});
                b.ended_epochs.push_back(d.info.slot);
                d.state = State::ending;
            }
        }
    seq_ += idle ? 0 : random(3);
    mark_ = seq_;
    b.mark = mark_;
    emit(FrameType::batch_begin, proto::BatchBegin{prev_mark, mark_, 1'000'000'000ULL * number_});
    for (const auto& m : begins)
        emit(FrameType::epoch_begin, m);
    std::shuffle(captured.begin(), captured.end(), random_);
    std::vector<Entry> all;  // resync data comes before and after captured writes
    for (std::size_t c = 0, r = 0; c < captured.size() || r < resync.size();) {
        const bool take = r == resync.size() || (c < captured.size() && random(2) == 0);
        all.push_back(std::move(take ? captured[c++] : resync[r++]));
    }
    proto::BatchEnd end;
    SetDigest digest;
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        digest.add(disks_[i].info.slot, taken[i]);
        end.sectors += taken[i].sectors();
    }
    end.digest = digest.value();
    end.extents = static_cast<std::uint32_t>(all.size());
    for (const Entry& e : all)
        end.payload_bytes += e.data.size();
    add_extents(b, all);
    for (const auto& m : ends)
        emit(FrameType::epoch_end, m);
    while (!wanted_points_.empty() && b.points.size() < proto::batch_points_max) {
        b.points.push_back(std::move(wanted_points_.back()));
        wanted_points_.pop_back();
        emit(FrameType::point_request, proto::PointRequest{number_, proto::PointKind::crash, b.points.back()});
    }
    end.consistent = std::ranges::all_of(disks_, [](const Disk& d) {
        return (d.state == State::ring || d.state == State::ending) && d.dirty.empty();
    });
    b.consistent = end.consistent;
    emit(FrameType::batch_end, end);
    if (b.consistent)
        for (const Disk& d : disks_)
            b.images.push_back(d.content);
    return b;
}

void Model::open_gap() {
    Disk& d = disks_[random(disks_.size())];
    if (d.state == State::ending)
        return;
    ++seq_;
    for (std::uint64_t n = 1 + random(4); n > 0; --n) {
        const Extent e = some_extent(200);
        fill(d, e);
        d.dirty.insert(e);
    }
    if (d.state == State::ring) {
        d.state = State::gap;
        d.kind = proto::EpochKind::gap;
    } else if (d.state == State::epoch) {
        // Overflow inside of a resync. The epoch may go on for a while; its captured writes stay as they were, except
        // that the sectors written outside of the ring must not be shipped from a stale capture: they are dirty now.
        d.fresh_gap = true;
    }
}

void Model::lose_tracking(std::size_t disk) {
    Disk& d = disks_[disk];
    d.info.attach_id = some_uuid(random_);
    ++seq_;
    for (int n = 0; n < 3; ++n)
        fill(d, some_extent(200));
    d.left.clear();
    d.captured.clear();
    d.dirty.clear();
    d.dirty.insert({0, d.info.sectors});
    d.state = State::gap;
    d.kind = proto::EpochKind::rescan;
    d.fresh_gap = false;
}

void Model::epoch_result(std::uint16_t slot, std::uint64_t seq0, bool ok) {
    for (Disk& d : disks_)
        if (d.info.slot == slot && d.state == State::ending && d.epoch.seq0 == seq0) {
            d.state = ok && d.dirty.empty() ? State::ring : State::gap;
            d.kind = ok ? proto::EpochKind::gap : proto::EpochKind::rescan;
            if (!ok)
                d.dirty.insert({0, d.info.sectors});
        }
}

std::optional<std::uint64_t> Model::awaited_epoch(std::uint16_t slot) const {
    for (const Disk& d : disks_)
        if (d.info.slot == slot && d.state == State::ending)
            return d.epoch.seq0;
    return std::nullopt;
}

bool Model::settled() const {
    return std::ranges::all_of(disks_, [](const Disk& d) { return d.state == State::ring; });
}

}  // namespace blkferry::test
