// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/hash.hpp"
#include "store/file.hpp"
#include "store/manifest.hpp"

namespace blkferry::store {

/// One disk of a recovery point as a read-only image. Works while the server runs and without the catalogue; holds the
/// point against removal. Thread-safe.
class PointReader {
public:
    /// `source_dir` is <store>/sources/<name>. `verifier` may be null: signatures are not checked.
    [[nodiscard]] static Result<std::unique_ptr<PointReader>> open(const std::filesystem::path& source_dir,
                                                                   std::string_view point, std::uint16_t slot,
                                                                   const Signer* verifier);
    /// The same on another file system (which outlives the reader); the point is not held.
    [[nodiscard]] static Result<std::unique_ptr<PointReader>> open_in(FileSystem& files,
                                                                      const std::filesystem::path& source_dir,
                                                                      std::string_view point, std::uint16_t slot,
                                                                      const Signer* verifier);
    ~PointReader();

    [[nodiscard]] const Manifest& manifest() const noexcept;
    [[nodiscard]] const ManifestDisk& disk() const noexcept;
    [[nodiscard]] std::uint64_t bytes() const noexcept;
    /// Fills `out` from byte `offset` on; beyond the end is Errc::invalid.
    [[nodiscard]] Result<void> read(std::uint64_t offset, std::span<std::byte> out) const;
    struct Range {
        std::uint64_t bytes = 0;
        bool zero = false;  ///< known to be zeroes without reading
    };
    /// What lies at `offset`, and how far at least.
    [[nodiscard]] Result<Range> range(std::uint64_t offset) const;

private:
    struct Impl;
    [[nodiscard]] static Result<std::unique_ptr<PointReader>> load(std::unique_ptr<Impl> impl,
                                                                   const std::filesystem::path& source_dir,
                                                                   std::uint16_t slot, const Signer* verifier);
    explicit PointReader(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

struct ExportResult {
    std::uint64_t bytes = 0;       ///< size of the image
    std::uint64_t data_bytes = 0;  ///< written; the rest are holes
    Sha256 sha256{};               ///< of the whole image
};
/// Writes the image to a new sparse file (Errc::exists if there is one) or over an existing block device, syncs it, and
/// takes its SHA-256 while going. `progress` gets the bytes done; returning false stops with Errc::closed.
[[nodiscard]] Result<ExportResult> export_image(const PointReader& reader, const std::filesystem::path& target,
                                                const std::function<bool(std::uint64_t)>& progress);
/// SHA-256 of the image without writing it anywhere.
[[nodiscard]] Result<ExportResult> digest_image(const PointReader& reader,
                                                const std::function<bool(std::uint64_t)>& progress);

}  // namespace blkferry::store
