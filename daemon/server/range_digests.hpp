// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/hash.hpp"
#include "store/export.hpp"

namespace blkferry::server {

/// Short digests of all ranges of one disk of a recovery point: they tell where an image differs from what it was, once the
/// SHA-256 of the manifest tells that it does. Kept in `<source>/proofs/<point>.<slot>` (docs/journal-format.md); the file is only
/// a help: without it, or if it is damaged or of another image, nothing but the place is unknown.
struct RangeDigests {
    static constexpr std::uint64_t range_bytes_min = 64U << 10;
    static constexpr std::size_t ranges_max = 65536;

    std::uint64_t image_bytes = 0;
    std::uint64_t range_bytes = range_bytes_min;
    Sha256 whole{};  ///< of the image
    std::vector<std::uint64_t> digests;
    bool operator==(const RangeDigests&) const = default;

    struct Range {
        std::uint64_t offset = 0;
        std::uint64_t bytes = 0;
        bool operator==(const Range&) const = default;
    };
    /// Where `other` (of an image of the same size) differs, neighbours joined.
    [[nodiscard]] std::vector<Range> differing(const RangeDigests& other) const;
};

/// The size of ranges of an image: a power of two, so that there are at most ranges_max.
[[nodiscard]] std::uint64_t range_bytes_of(std::uint64_t image_bytes) noexcept;

/// Reads a whole image and digests it. `progress` gets the bytes done; returning false stops with Errc::closed.
[[nodiscard]] Result<RangeDigests> digest_ranges(const store::PointReader& reader, const std::function<bool(std::uint64_t)>& progress);

[[nodiscard]] std::vector<std::byte> encode(const RangeDigests& digests);
/// Refuses what was not written by encode().
[[nodiscard]] Result<RangeDigests> decode_range_digests(std::span<const std::byte> data);

/// The files of one source.
class ProofFolder {
public:
    explicit ProofFolder(const std::filesystem::path& source_dir) : dir_(source_dir / "proofs") {}
    /// The digests of the image with this SHA-256, if they are known.
    [[nodiscard]] std::optional<RangeDigests> load(const std::string& point, std::uint16_t slot, const Sha256& whole) const;
    [[nodiscard]] Result<void> save(const std::string& point, std::uint16_t slot, const RangeDigests& digests) const;
    /// Removes the files of points that are not there any more.
    void collect(const std::vector<store::Manifest>& points) const;

private:
    [[nodiscard]] std::filesystem::path path_of(const std::string& point, std::uint16_t slot) const;
    std::filesystem::path dir_;
};

}  // namespace blkferry::server
