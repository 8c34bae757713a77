// SPDX-License-Identifier: Apache-2.0
#include "server/range_digests.hpp"

#include <algorithm>
#include <bit>

#include <fmt/format.h>

#include "base/bytes.hpp"

namespace blkferry::server {

namespace {

constexpr std::uint32_t magic = 0x44524642;  // "BFRD"
constexpr std::uint32_t version = 1;
constexpr std::size_t head_bytes = 4 + 4 + 8 + 8 + 32;
constexpr std::size_t file_bytes_max = head_bytes + RangeDigests::ranges_max * 8 + 4;
constexpr std::size_t piece_bytes = 1U << 20;
constexpr std::size_t block_bytes = RangeDigests::range_bytes_min;

/// Chains the digest of one block to those before it in the range.
std::uint64_t chained(std::uint64_t before, std::uint64_t block) {
    std::array<std::byte, 16> pair;
    store_le(pair.data(), before);
    store_le(pair.data() + 8, block);
    return xxh3(pair);
}

/// Takes an image in order, in pieces that begin on block boundaries.
class Walk {
public:
    explicit Walk(std::uint64_t image_bytes) {
        out_.image_bytes = image_bytes;
        out_.range_bytes = range_bytes_of(image_bytes);
    }
    void add(std::span<const std::byte> data) {
        whole_.add(data);
        while (!data.empty()) {
            const auto block = data.first(std::min(data.size(), block_bytes));
            if (at_ % out_.range_bytes == 0)
                out_.digests.push_back(0);
            out_.digests.back() = chained(out_.digests.back(), xxh3(block));
            at_ += block.size();
            data = data.subspan(block.size());
        }
    }
    [[nodiscard]] RangeDigests finish() {
        out_.whole = whole_.value();
        return std::move(out_);
    }

private:
    RangeDigests out_;
    Sha256Stream whole_;
    std::uint64_t at_ = 0;
};

}  // namespace

std::uint64_t range_bytes_of(std::uint64_t image_bytes) noexcept {
    const std::uint64_t least = (image_bytes + RangeDigests::ranges_max - 1) / RangeDigests::ranges_max;
    return std::bit_ceil(std::max(least, RangeDigests::range_bytes_min));
}

std::vector<RangeDigests::Range> RangeDigests::differing(const RangeDigests& other) const {
    std::vector<Range> out;
    for (std::size_t i = 0; i < digests.size(); ++i) {
        if (i < other.digests.size() && digests[i] == other.digests[i])
            continue;
        const std::uint64_t offset = i * range_bytes;
        const std::uint64_t bytes = std::min(range_bytes, image_bytes - offset);
        if (!out.empty() && out.back().offset + out.back().bytes == offset)
            out.back().bytes += bytes;
        else
            out.push_back({offset, bytes});
    }
    return out;
}

Result<RangeDigests> digest_ranges(const store::PointReader& reader, const std::function<bool(std::uint64_t)>& progress) {
    Walk walk(reader.bytes());
    std::vector<std::byte> buffer(piece_bytes);
    for (std::uint64_t at = 0; at < reader.bytes();) {
        const auto piece = std::span(buffer).first(static_cast<std::size_t>(std::min<std::uint64_t>(piece_bytes, reader.bytes() - at)));
        BLKFERRY_TRY_ASSIGN(const auto range, reader.range(at));
        if (range.zero && range.bytes >= piece.size())
            std::ranges::fill(piece, std::byte{0});
        else
            BLKFERRY_TRY(reader.read(at, piece));
        walk.add(piece);
        at += piece.size();
        if (progress && !progress(at))
            return fail(Errc::closed, "stopped");
    }
    return walk.finish();
}

std::vector<std::byte> encode(const RangeDigests& d) {
    std::vector<std::byte> out;
    out.reserve(head_bytes + d.digests.size() * 8 + 4);
    ByteWriter w(out);
    w.put(magic);
    w.put(version);
    w.put(d.image_bytes);
    w.put(d.range_bytes);
    w.bytes(d.whole);
    for (const std::uint64_t digest : d.digests)
        w.put(digest);
    w.put(crc32c(out));
    return out;
}

Result<RangeDigests> decode_range_digests(std::span<const std::byte> data) {
    if (data.size() < head_bytes + 4 || crc32c(data.first(data.size() - 4)) != load_le<std::uint32_t>(data.data() + data.size() - 4))
        return fail(Errc::corrupt, "range digests: bad checksum");
    ByteReader in(data.first(data.size() - 4));
    if (in.get<std::uint32_t>() != magic || in.get<std::uint32_t>() != version)
        return fail(Errc::corrupt, "range digests: not of a kind that is known");
    RangeDigests d;
    d.image_bytes = in.get<std::uint64_t>();
    d.range_bytes = in.get<std::uint64_t>();
    std::ranges::copy(in.bytes(d.whole.size()), d.whole.begin());
    if (d.range_bytes != range_bytes_of(d.image_bytes) ||
        in.rest().size() != (d.image_bytes + d.range_bytes - 1) / d.range_bytes * 8)
        return fail(Errc::corrupt, "range digests: sizes do not fit together");
    while (!in.done())
        d.digests.push_back(in.get<std::uint64_t>());
    return d;
}

std::filesystem::path ProofFolder::path_of(const std::string& point, std::uint16_t slot) const {
    return dir_ / fmt::format("{}.{:03}", point, slot);
}

std::optional<RangeDigests> ProofFolder::load(const std::string& point, std::uint16_t slot, const Sha256& whole) const {
    const auto text = store::make_posix_file_system()->read_text(path_of(point, slot), file_bytes_max);
    if (!text)
        return std::nullopt;
    auto digests = decode_range_digests(std::as_bytes(std::span(*text)));
    if (!digests || digests->whole != whole)
        return std::nullopt;
    return std::move(*digests);
}

Result<void> ProofFolder::save(const std::string& point, std::uint16_t slot, const RangeDigests& digests) const {
    const auto files = store::make_posix_file_system();
    BLKFERRY_TRY(files->make_dir(dir_));
    const auto data = encode(digests);
    return files->write_text_durable(path_of(point, slot), {reinterpret_cast<const char*>(data.data()), data.size()});
}

void ProofFolder::collect(const std::vector<store::Manifest>& points) const {
    const auto files = store::make_posix_file_system();
    const auto names = files->list(dir_);
    if (!names)
        return;
    for (const std::string& name : *names) {
        const std::string point = name.substr(0, name.rfind('.'));
        if (std::ranges::find(points, point, &store::Manifest::name) == points.end())
            (void)files->remove(dir_ / name);
    }
}

}  // namespace blkferry::server
