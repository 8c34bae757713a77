// SPDX-License-Identifier: Apache-2.0
#include "server/verify_point.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/fd.hpp"
#include "server/range_digests.hpp"
#include "store/export.hpp"

namespace blkferry::server {

namespace {

using control::Json;

constexpr std::size_t ranges_told_max = 100;

std::string hex(const Sha256& hash) {
    std::string s;
    for (const std::byte b : hash)
        s += fmt::format("{:02x}", std::to_integer<unsigned>(b));
    return s;
}

std::optional<Sha256> from_hex(const std::string& text) {
    Sha256 out;
    if (text.size() != out.size() * 2 || text.find_first_not_of("0123456789abcdef") != std::string::npos)
        return std::nullopt;
    for (std::size_t i = 0; i < out.size(); ++i)
        out[i] = static_cast<std::byte>(std::stoul(text.substr(2 * i, 2), nullptr, 16));
    return out;
}

/// "signed", "unsigned" or "bad", from the manifest's file as it is now.
Result<std::string> manifest_state(const std::filesystem::path& dir, const std::string& point, const store::Signer& signer) {
    BLKFERRY_TRY_ASSIGN(const std::string text,
                        read_text_file(dir / "points" / (point + ".json"), store::manifest_bytes_max));
    const auto plain = store::decode_manifest(text, nullptr);
    if (!plain)
        return "bad";
    if (!plain->is_signed)
        return "unsigned";
    return store::decode_manifest(text, &signer) ? "signed" : "bad";
}

/// Where the image differs from what the manifest's digest stands for; the whole disk if the place is not known.
std::vector<RangeDigests::Range> differing(const ProofFolder& proofs, const std::string& point, std::uint16_t slot,
                                           const std::string& known, const RangeDigests& now) {
    const auto whole = from_hex(known);
    const auto before = whole ? proofs.load(point, slot, *whole) : std::nullopt;
    std::vector<RangeDigests::Range> ranges;
    if (before && before->image_bytes == now.image_bytes)
        ranges = before->differing(now);
    if (ranges.empty())
        ranges.push_back({0, now.image_bytes});
    return ranges;
}

}  // namespace

Result<Json> verify_point(const PointTarget& t, const std::filesystem::path& source_dir, const store::Signer& signer,
                          const std::function<bool(std::uint64_t, std::uint64_t)>& progress) {
    BLKFERRY_TRY_ASSIGN(const std::string manifest, manifest_state(source_dir, t.point, signer));
    const ProofFolder proofs(source_dir);
    proofs.collect(t.store->points().list());
    std::uint64_t total = 0;
    for (const auto& d : t.manifest.disks)
        total += d.sectors * sector_bytes;
    std::uint64_t done = 0;
    std::uint64_t differing_bytes = 0;
    auto digests = t.manifest.digests;
    Json rows = Json::array();
    Json ranges = Json::array();
    for (const auto& d : t.manifest.disks) {
        BLKFERRY_TRY_ASSIGN(const auto reader, store::PointReader::open(source_dir, t.point, d.slot, nullptr));
        BLKFERRY_TRY_ASSIGN(const RangeDigests now, digest_ranges(*reader, [&](std::uint64_t bytes) {
                                return progress(done + bytes, total);
                            }));
        done += reader->bytes();
        const std::string digest = hex(now.whole);
        const auto [known, added] = digests.emplace(d.slot, digest);
        rows.push_back({{"slot", d.slot}, {"sha256", digest}, {"compared", !added}});
        if (known->second == digest) {
            if (!proofs.load(t.point, d.slot, now.whole))
                BLKFERRY_TRY(proofs.save(t.point, d.slot, now));
            continue;
        }
        for (const auto& range : differing(proofs, t.point, d.slot, known->second, now)) {
            differing_bytes += range.bytes;
            if (ranges.size() < ranges_told_max)
                ranges.push_back({{"slot", d.slot}, {"offset", range.offset}, {"bytes", range.bytes}});
        }
    }
    const bool equal = differing_bytes == 0 && manifest != "bad";
    if (equal && digests != t.manifest.digests)
        BLKFERRY_TRY(t.store->points().set_proof(t.point, t.manifest.launchable, digests));
    return Json{{"equal", equal},   {"compared_bytes", done}, {"differing_bytes", differing_bytes},
                {"ranges", ranges}, {"manifest", manifest},   {"digests", rows}};
}

}  // namespace blkferry::server
