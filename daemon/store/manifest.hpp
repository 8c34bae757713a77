// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "base/uuid.hpp"
#include "proto/batch.hpp"
#include "store/chunk_store.hpp"
#include "store/signer.hpp"

/// What a recovery point is, as a JSON text. Pure. docs/journal-format.md describes the members.
namespace blkferry::store {

inline constexpr std::size_t manifest_bytes_max = 1U << 20;

struct ManifestDisk {
    std::uint16_t slot = 0;
    Uuid disk_id;
    std::string name;
    std::string identity;
    std::uint64_t sectors = 0;
    std::uint32_t logical_block = 512;
    std::uint64_t chunk_bytes = chunk_bytes_default;
    Generation generation = 0;
    bool operator==(const ManifestDisk&) const = default;
};

/// How far it is proven that the point starts.
enum class Launchable : std::uint8_t { unproven, launchable, failed };
[[nodiscard]] std::string_view to_string(Launchable state) noexcept;

struct Manifest {
    // never changes: hashed, chained, signed
    std::uint64_t serial = 0;     ///< 1, 2, 3, ... in the order in which the source's points were made
    std::string name;
    std::string source;
    Uuid source_id;
    Uuid store;
    std::uint64_t batch = 0;
    std::uint64_t mark = 0;
    std::uint64_t mark_time_ns = 0;  ///< source's wall time at the mark
    std::uint64_t made_ns = 0;       ///< server's wall time
    proto::PointKind kind = proto::PointKind::crash;
    bool scheduled = false;          ///< made by the server's interval; else asked for
    std::vector<ManifestDisk> disks;
    std::string parent_hash;         ///< hash() of the point with serial - 1; 64 zeroes for the first
    // changes while the point lives; signed apart
    Launchable launchable = Launchable::unproven;
    std::map<std::uint16_t, std::string> digests;  ///< slot -> SHA-256 of the whole image, once verified
    bool operator==(const Manifest&) const = default;

    /// SHA-256 in hex over the unchanging part's canonical text: the next point's parent_hash.
    [[nodiscard]] std::string hash() const;
    [[nodiscard]] const ManifestDisk* disk(std::uint16_t slot) const noexcept;
};

/// The file's text. `signer` may be null: unsigned.
[[nodiscard]] Result<std::string> encode(const Manifest& m, const Signer* signer);

struct DecodedManifest {
    Manifest manifest;
    bool is_signed = false;
    std::string key_id;
};
/// Refuses unknown, missing, ill-typed and out-of-range members. With a verifier both signatures must be good.
[[nodiscard]] Result<DecodedManifest> decode_manifest(std::string_view text, const Signer* verifier);

}  // namespace blkferry::store
