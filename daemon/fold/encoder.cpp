// SPDX-License-Identifier: Apache-2.0
#include "fold/encoder.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include <fmt/format.h>

#include "base/bytes.hpp"
#include "base/hash.hpp"
#include "codec/zero.hpp"
#include "proto/frame.hpp"

namespace blkferry::fold {

namespace {

constexpr std::size_t zero_unit_bytes = 4096;
constexpr std::uint32_t zero_unit_sectors = zero_unit_bytes / sector_bytes;

/// Whether an entry of `sectors` so far may also hold `next`, which continues it on the disk.
bool entry_holds(proto::ExtentKind kind, std::uint64_t sectors, std::uint64_t more) noexcept {
    return proto::has_payload(kind) || sectors + more <= std::numeric_limits<std::uint32_t>::max();
}

/// Collects the entries and payload spans of one frame.
class FrameTable {
public:
    explicit FrameTable(std::size_t entries) { entries_.reserve(entries); }

    void add(const Piece& p) {
        if (!entries_.empty()) {
            proto::ExtentEntry& last = entries_.back();
            if (last.slot == p.slot && last.kind == p.kind && last.extent.end() == p.sector &&
                entry_holds(p.kind, last.extent.count, p.sectors)) {
                last.extent.count += p.sectors;
                add_payload(p);
                return;
            }
        }
        entries_.push_back({p.slot, p.kind, p.extent()});
        add_payload(p);
    }
    [[nodiscard]] const std::vector<proto::ExtentEntry>& entries() const noexcept { return entries_; }
    [[nodiscard]] const std::vector<std::span<const std::byte>>& spans() const noexcept { return spans_; }
    [[nodiscard]] std::size_t payload_bytes() const noexcept { return payload_bytes_; }

private:
    void add_payload(const Piece& p) {
        const auto s = p.payload();
        if (s.empty())
            return;
        payload_bytes_ += s.size();
        if (!spans_.empty() && spans_.back().data() + spans_.back().size() == s.data())
            spans_.back() = {spans_.back().data(), spans_.back().size() + s.size()};
        else
            spans_.push_back(s);
    }

    std::vector<proto::ExtentEntry> entries_;
    std::vector<std::span<const std::byte>> spans_;
    std::size_t payload_bytes_ = 0;
};

Piece part_of(const Piece& p, std::uint32_t from, std::uint32_t count) noexcept {
    Piece part = p;
    part.sector += from;
    part.sectors = count;
    if (part.data != nullptr)
        part.data += std::size_t{from} * sector_bytes;
    return part;
}

/// Adds a piece with payload, with its all-zero 4 KiB units (aligned on the disk) as entries without payload, as long as
/// `spare` entries last: each run of zeroes may cost two.
std::uint64_t add_without_zeroes(const Piece& p, std::size_t& spare, FrameTable& table) {
    std::uint64_t zero_bytes = 0;
    std::uint32_t data_from = 0;
    const auto flush_data = [&](std::uint32_t to) {
        if (to > data_from)
            table.add(part_of(p, data_from, to - data_from));
    };
    const auto lead = static_cast<std::uint32_t>((zero_unit_sectors - p.sector % zero_unit_sectors) % zero_unit_sectors);
    for (std::uint32_t at = lead; at + zero_unit_sectors <= p.sectors && spare >= 2;) {
        std::uint32_t end = at;
        while (end + zero_unit_sectors <= p.sectors &&
               is_zero({p.data + std::size_t{end} * sector_bytes, zero_unit_bytes}))
            end += zero_unit_sectors;
        if (end == at) {
            at += zero_unit_sectors;
            continue;
        }
        flush_data(at);
        Piece zero = part_of(p, at, end - at);
        zero.data = nullptr;
        zero.kind = p.kind == proto::ExtentKind::data ? proto::ExtentKind::zero : proto::ExtentKind::resync_zero;
        table.add(zero);
        zero_bytes += std::uint64_t{end - at} * sector_bytes;
        spare -= 2;
        at = data_from = end;
    }
    flush_data(p.sectors);
    return zero_bytes;
}

template <class Body>
void control_frame(proto::FrameType type, std::uint64_t batch, std::uint32_t index, const Body& body,
                   std::vector<std::byte>& out) {
    std::vector<std::byte> raw;
    proto::encode(body, raw);
    proto::encode_frame(type, batch, index, raw, nullptr, out);
}

bool payload_matches_kind(const Piece& p) noexcept {
    return proto::has_payload(p.kind) == (p.data != nullptr);
}

}  // namespace

void FrameBuffer::prepare(std::size_t capacity) {
    if (capacity > capacity_) {
        data_ = std::make_unique_for_overwrite<std::byte[]>(capacity);
        capacity_ = capacity;
    }
    size_ = 0;
}

bool ResyncBudget::take(const Piece& piece) noexcept {
    const std::uint64_t payload = piece.payload_bytes();
    if (extents_ == 0 || payload > payload_bytes_)
        return false;
    --extents_;
    payload_bytes_ -= payload;
    return true;
}

Result<void> BatchPlan::check(const Folded& folded) const {
    const auto refuse = [&](std::string_view what) {
        return fail(Errc::invalid, fmt::format("batch {} cannot be encoded: {}", parts_.batch, what));
    };
    if (parts_.batch == 0)
        return refuse("it has no number");
    if (parts_.begin.mark < parts_.begin.prev_mark)
        return refuse("its mark is below the previous one");
    if (options_.frame_payload_bytes < (128U << 10) || options_.frame_payload_bytes > (512U << 10) ||
        options_.frame_payload_bytes % zero_unit_bytes != 0)
        return refuse("the payload of a frame must be a multiple of 4 KiB from 128 KiB to 512 KiB");
    const auto bad_piece = [](const Piece& p, bool resync) {
        return p.slot >= proto::disks_max || p.sectors == 0 || p.sector > proto::disk_sectors_max - p.sectors ||
               proto::is_resync(p.kind) != resync || !payload_matches_kind(p);
    };
    if (std::ranges::any_of(folded.pieces, [&](const Piece& p) { return bad_piece(p, false); }))
        return refuse("a captured extent is out of range");
    if (std::ranges::any_of(parts_.resync, [&](const Piece& p) { return bad_piece(p, true); }))
        return refuse("a resync extent is out of range");
    return {};
}

Result<void> BatchPlan::check_limits(std::size_t entries) const {
    const auto refuse = [&](std::string_view what, std::uint64_t n, std::uint64_t max) {
        return fail(Errc::no_space,
                    fmt::format("batch {} is too large: {} {}, {} allowed", parts_.batch, n, what, max));
    };
    if (entries > proto::batch_extents_max)
        return refuse("extents", entries, proto::batch_extents_max);
    if (payload_bytes_ > proto::batch_payload_bytes_max)
        return refuse("bytes of payload", payload_bytes_, proto::batch_payload_bytes_max);
    if (frames() > proto::batch_frames_max)
        return refuse("frames", frames(), proto::batch_frames_max);
    if (parts_.points.size() > proto::batch_points_max)
        return refuse("point requests", parts_.points.size(), proto::batch_points_max);
    return {};
}

Result<BatchPlan> BatchPlan::make(Folded folded, BatchParts parts, EncodeOptions options) {
    BatchPlan plan;
    plan.parts_ = std::move(parts);
    plan.options_ = options;
    plan.sectors_ = folded.sectors;
    plan.digest_ = folded.digest;
    BLKFERRY_TRY(plan.check(folded));
    plan.pieces_.reserve(folded.pieces.size() + plan.parts_.resync.size() + 64);
    for (const Piece& p : folded.pieces)
        plan.cut(p);
    for (const Piece& p : plan.parts_.resync)
        plan.cut(p);
    std::size_t entries = 0;
    for (const Job& job : plan.jobs_) {
        plan.payload_bytes_ += job.payload_bytes;
        entries += job.entries;
    }
    BLKFERRY_TRY(plan.check_limits(entries));
    plan.spread_zero_budget(entries);
    return plan;
}

/// Adds a piece to the open frame; what has no room there goes to the next one.
void BatchPlan::cut(const Piece& piece) {
    std::uint32_t from = 0;
    while (from < piece.sectors) {
        const std::size_t used = jobs_.empty() ? options_.frame_payload_bytes : jobs_.back().payload_bytes;
        const std::uint32_t left = piece.sectors - from;
        std::uint32_t count = left;
        if (proto::has_payload(piece.kind)) {
            const auto room = static_cast<std::uint32_t>((options_.frame_payload_bytes - used) / sector_bytes);
            if (left > room)
                count = room - room % zero_unit_sectors;
        }
        if (jobs_.empty() || count == 0 || jobs_.back().entries == proto::frame_extents_max) {
            jobs_.push_back({.first = pieces_.size(), .past = pieces_.size()});
            continue;
        }
        push(part_of(piece, from, count));
        from += count;
    }
}

/// Appends a piece to the last job and counts entries as FrameTable will make them.
void BatchPlan::push(const Piece& piece) {
    Job& job = jobs_.back();
    const bool joins = job.past > job.first && pieces_.back().continued_by(piece) &&
                       entry_holds(piece.kind, entry_sectors_, piece.sectors);
    entry_sectors_ = joins ? entry_sectors_ + piece.sectors : piece.sectors;
    job.entries += joins ? 0 : 1;
    job.payload_bytes += piece.payload_bytes();
    pieces_.push_back(piece);
    job.past = pieces_.size();
}

/// Zero detection splits entries: each frame gets a share, by payload, of the entries that the batch may still have.
void BatchPlan::spread_zero_budget(std::size_t entries) {
    const std::uint64_t spare = proto::batch_extents_max - entries;
    for (Job& job : jobs_) {
        const std::uint64_t share = payload_bytes_ == 0 ? 0 : spare * job.payload_bytes / payload_bytes_;
        job.entries_max = job.entries + static_cast<std::size_t>(
                                            std::min<std::uint64_t>(share, proto::frame_extents_max - job.entries));
    }
}

std::size_t BatchPlan::frames() const noexcept {
    return 2 + parts_.epoch_begins.size() + jobs_.size() + parts_.epoch_ends.size() + parts_.points.size();
}

void BatchPlan::begin(std::vector<std::byte>& out) const {
    std::uint32_t index = 0;
    control_frame(proto::FrameType::batch_begin, parts_.batch, index++, parts_.begin, out);
    for (const proto::EpochBegin& e : parts_.epoch_begins)
        control_frame(proto::FrameType::epoch_begin, parts_.batch, index++, e, out);
}

JobTotals BatchPlan::encode(std::size_t job_index, Compressor* compressor, FrameBuffer& scratch,
                            FrameBuffer& out) const {
    const Job& job = jobs_[job_index];
    JobTotals totals;
    FrameTable table(job.entries_max);
    std::size_t spare = options_.detect_zero ? job.entries_max - job.entries : 0;
    for (std::size_t i = job.first; i < job.past; ++i) {
        if (spare >= 2 && proto::has_payload(pieces_[i].kind))
            totals.zero_bytes += add_without_zeroes(pieces_[i], spare, table);
        else
            table.add(pieces_[i]);
    }
    totals.extents = table.entries().size();
    totals.payload_bytes = table.payload_bytes();

    const std::size_t head = proto::extents_head_bytes(table.entries().size());
    const std::size_t raw_len = head + table.payload_bytes();
    BLKFERRY_ASSERT(table.entries().size() <= proto::frame_extents_max && raw_len <= proto::frame_body_bytes_max);
    out.prepare(proto::frame_header_bytes + raw_len);
    std::byte* const body = out.data() + proto::frame_header_bytes;
    std::vector<std::byte> head_bytes;
    head_bytes.reserve(head);
    proto::encode_extents_head(table.entries(), head_bytes);
    std::memcpy(body, head_bytes.data(), head);
    std::byte* to = body + head;
    for (const auto& span : table.spans()) {
        std::memcpy(to, span.data(), span.size());
        to += span.size();
    }

    proto::FrameHeader h;
    h.type = proto::FrameType::extents;
    h.batch = parts_.batch;
    h.index = static_cast<std::uint32_t>(1 + parts_.epoch_begins.size() + job_index);
    h.raw_len = h.wire_len = static_cast<std::uint32_t>(raw_len);
    h.body_xxh3 = xxh3({body, raw_len});
    if (compressor != nullptr) {
        scratch.prepare(proto::frame_header_bytes + Compressor::room(raw_len));
        const std::size_t n = compressor->compress_into(
            {body, raw_len}, {scratch.data() + proto::frame_header_bytes, Compressor::room(raw_len)});
        if (n != 0) {
            h.codec = compressor->codec();
            h.wire_len = static_cast<std::uint32_t>(n);
            std::swap(out, scratch);
        }
    }
    const proto::HeaderBytes header = proto::encode_header(h);
    std::memcpy(out.data(), header.data(), header.size());
    out.set_size(proto::frame_header_bytes + h.wire_len);
    return totals;
}

void BatchPlan::end(const JobTotals& totals, bool consistent, std::vector<std::byte>& out) const {
    auto index = static_cast<std::uint32_t>(1 + parts_.epoch_begins.size() + jobs_.size());
    for (const proto::EpochEnd& e : parts_.epoch_ends)
        control_frame(proto::FrameType::epoch_end, parts_.batch, index++, e, out);
    for (const proto::PointRequest& p : parts_.points)
        control_frame(proto::FrameType::point_request, parts_.batch, index++, p, out);
    proto::BatchEnd end;
    end.extents = static_cast<std::uint32_t>(totals.extents);
    end.consistent = consistent;
    end.payload_bytes = totals.payload_bytes;
    end.sectors = sectors_;
    end.digest = digest_;
    control_frame(proto::FrameType::batch_end, parts_.batch, index, end, out);
}

}  // namespace blkferry::fold
