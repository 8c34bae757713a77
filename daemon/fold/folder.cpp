// SPDX-License-Identifier: Apache-2.0
#include "fold/folder.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <utility>

namespace blkferry::fold {

namespace {

constexpr unsigned slot_shift = 54;
static_assert(proto::disk_sectors_max == 1ULL << slot_shift);
static_assert(proto::disks_max << slot_shift >> slot_shift == proto::disks_max);

/// Payload-less pieces are not joined beyond this, so that a count always fits its 32 bits.
constexpr std::uint64_t piece_sectors_max = 1ULL << 31;

std::uint64_t key_of(const Piece& p) noexcept {
    return (std::uint64_t{p.slot} << slot_shift) + p.sector;
}

proto::ExtentKind kind_of(capture::OpKind op) noexcept {
    if (op == capture::OpKind::write)
        return proto::ExtentKind::data;
    return op == capture::OpKind::zeroes ? proto::ExtentKind::zero : proto::ExtentKind::discard;
}

bool counts(const capture::CapturedOp& op) noexcept {
    return op.state == capture::OpState::done && !is_marker(op.op);
}

}  // namespace

ExtentSet Folded::set_of(std::uint16_t slot) const {
    ExtentSet set;
    const auto range = std::ranges::equal_range(pieces, slot, {}, &Piece::slot);
    for (const Piece& p : range)
        set.insert(p.extent());
    return set;
}

/// Whether a batch of these folded sizes plus the new operations stays below the limits less a share of them.
bool Folder::room_for(std::size_t entries, std::uint64_t payload_bytes, std::size_t spare_div) const noexcept {
    const auto less = [spare_div](std::uint64_t limit) { return spare_div == 0 ? limit : limit - limit / spare_div; };
    return entries <= less(limits_.extents_max) && payload_bytes <= less(limits_.payload_bytes_max);
}

bool Folder::fits(const capture::CapturedOp& op) {
    if (ops_ == 0 || !counts(op))
        return true;
    if (full_)
        return false;
    // Each operation adds at most two entries: itself, and the second half of what it cuts in two.
    const std::uint64_t payload = op.payload().size();
    if (room_for(folded_entries_ + 2 * (list_.size() - folded_ + 1), folded_payload_ + new_payload_ + payload, 0))
        return true;
    consolidate();
    // Folding again for each few operations would be slow: what is within an eighth of the limit is full.
    full_ = !room_for(folded_entries_ + 2, folded_payload_ + payload, 8);
    return !full_;
}

void Folder::add(const capture::CapturedOp& op) {
    if (!counts(op))
        return;
    BLKFERRY_ASSERT(op.slot < proto::disks_max);
    ++ops_;
    sectors_in_ += op.nr_sectors;
    const std::uint64_t bytes = op.payload().size();
    payload_in_ += bytes;
    new_payload_ += bytes;
    list_.push_back({op.sector, op.data, op.nr_sectors, op.slot, kind_of(op.op)});
}

/// Fills keys_ with the new operations, ascending by key, equal keys in the order of the operations.
void Folder::sort_new() {
    const std::size_t n = list_.size() - folded_;
    keys_.resize(n);
    std::uint64_t differ = 0;
    const std::uint64_t any = n == 0 ? 0 : key_of(list_[folded_]);
    for (std::size_t i = 0; i < n; ++i) {
        keys_[i] = {key_of(list_[folded_ + i]), static_cast<std::uint32_t>(folded_ + i)};
        differ |= keys_[i].key ^ any;
    }
    if (n < 512) {
        std::ranges::sort(keys_, [](const Key& a, const Key& b) {
            return a.key != b.key ? a.key < b.key : a.index < b.index;
        });
        return;
    }
    // Least significant digit first, stable; only over the bits in which keys differ.
    constexpr unsigned digit_bits = 11;
    constexpr std::size_t digits = 1U << digit_bits;
    keys_tmp_.resize(n);
    for (unsigned shift = 0; shift < 64 && (differ >> shift) != 0; shift += digit_bits) {
        shift += static_cast<unsigned>(std::countr_zero(differ >> shift));
        std::array<std::uint32_t, digits> at{};
        for (const Key& k : keys_)
            ++at[(k.key >> shift) & (digits - 1)];
        std::uint32_t sum = 0;
        for (std::uint32_t& a : at)
            sum += std::exchange(a, sum);
        for (const Key& k : keys_)
            keys_tmp_[at[(k.key >> shift) & (digits - 1)]++] = k;
        keys_.swap(keys_tmp_);
    }
}

/// Merges the keys of the pieces that are folded already (ascending as they are) into keys_.
void Folder::merge_folded() {
    if (folded_ == 0)
        return;
    keys_tmp_.resize(list_.size());
    std::size_t a = 0;
    std::size_t b = 0;
    for (Key& out : keys_tmp_) {
        if (a < folded_ && (b == keys_.size() || key_of(list_[a]) <= keys_[b].key)) {
            out = {key_of(list_[a]), static_cast<std::uint32_t>(a)};
            ++a;
        } else {
            out = keys_[b++];
        }
    }
    keys_.swap(keys_tmp_);
}

/// Appends the part [from, to) of an operation, joined to the piece before if disk and memory both continue.
void Folder::emit(const Piece& op, std::uint64_t from, std::uint64_t to) {
    Piece part = op;
    part.sector = from;
    part.sectors = static_cast<std::uint32_t>(to - from);
    if (part.data != nullptr)
        part.data += (from - op.sector) * sector_bytes;
    folded_payload_ += part.payload_bytes();
    if (!out_.empty() && out_.back().continued_by(part)) {
        Piece& last = out_.back();
        const bool one_span = last.data == nullptr || last.data + last.payload_bytes() == part.data;
        if (one_span && std::uint64_t{last.sectors} + part.sectors <= piece_sectors_max) {
            last.sectors += part.sectors;
            return;
        }
    } else {
        ++folded_entries_;
    }
    out_.push_back(part);
}

/// Resolves the overlapping operations that start at keys_[i]; returns the first key behind them. One pass over their
/// starts with a heap of those that cover the current sector: the latest one owns it.
std::size_t Folder::sweep_overlap(std::size_t i) {
    const std::uint64_t slot_base = keys_[i].key - list_[keys_[i].index].sector;
    const auto start = [&](std::size_t k) { return keys_[k].key - slot_base; };
    const auto end = [&](std::uint32_t op) { return list_[op].sector + list_[op].sectors; };
    const std::size_t n = keys_.size();
    std::uint64_t at = start(i);
    heap_.clear();
    heap_.push_back(keys_[i++].index);
    while (!heap_.empty()) {
        const std::uint32_t top = heap_.front();
        if (end(top) <= at) {
            std::ranges::pop_heap(heap_);
            heap_.pop_back();
            continue;
        }
        std::uint64_t limit = end(top);
        std::uint32_t later = top;
        for (; later == top && i < n && start(i) < limit; ++i) {
            const std::uint32_t op = keys_[i].index;
            if (op > top) {
                limit = start(i);
                later = op;
            } else if (end(op) <= limit) {
                continue;  // hidden by `top` altogether
            }
            heap_.push_back(op);
            std::ranges::push_heap(heap_);
        }
        if (limit > at)
            emit(list_[top], at, limit);
        at = std::max(at, limit);
    }
    return i;
}

void Folder::sweep() {
    const std::size_t n = keys_.size();
    for (std::size_t i = 0; i < n;) {
        const Piece& op = list_[keys_[i].index];
        const std::uint64_t key = keys_[i].key;
        // The usual case: the same blocks were written several times, and nothing else touches them.
        std::size_t next = i + 1;
        std::size_t winner = i;
        while (next < n && keys_[next].key == key && list_[keys_[next].index].sectors == op.sectors)
            winner = next++;
        if (next == n || keys_[next].key >= key + op.sectors) {
            const Piece& last = list_[keys_[winner].index];
            emit(last, last.sector, last.sector + last.sectors);
            i = next;
        } else {
            i = sweep_overlap(i);
        }
    }
}

void Folder::consolidate() {
    if (folded_ == list_.size())
        return;
    BLKFERRY_ASSERT(list_.size() <= std::numeric_limits<std::uint32_t>::max());
    sort_new();
    merge_folded();
    out_.clear();
    folded_entries_ = 0;
    folded_payload_ = 0;
    sweep();
    list_.swap(out_);
    folded_ = list_.size();
    new_payload_ = 0;
}

Folded Folder::finish() {
    consolidate();
    Folded f;
    f.payload_bytes = folded_payload_;
    SetDigest digest;
    for (std::size_t i = 0; i < list_.size();) {
        const Piece& first = list_[i];
        std::uint64_t end = first.sector;
        for (; i < list_.size() && list_[i].slot == first.slot && list_[i].sector == end; ++i)
            end += list_[i].sectors;
        digest.add(first.slot, {first.sector, end - first.sector});
        f.sectors += end - first.sector;
    }
    f.digest = digest.value();
    f.pieces.assign(list_.begin(), list_.end());
    clear();
    return f;
}

void Folder::clear() noexcept {
    list_.clear();
    folded_ = 0;
    folded_entries_ = 0;
    folded_payload_ = 0;
    new_payload_ = 0;
    full_ = false;
    ops_ = 0;
    sectors_in_ = 0;
    payload_in_ = 0;
}

}  // namespace blkferry::fold
