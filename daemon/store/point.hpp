// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "store/file.hpp"
#include "store/manifest.hpp"

namespace blkferry::store {

/// A line of points/removed.log: that a point was removed is part of the chain.
struct RemovedPoint {
    std::uint64_t serial = 0;
    std::string name;
    std::string hash;
    std::string parent_hash;
    std::uint64_t removed_ns = 0;
    bool operator==(const RemovedPoint&) const = default;
};

/// The recovery points of one source: `points/<name>.json` and `points/removed.log`. Thread-safe.
class PointStore {
public:
    /// Reads every manifest and finishes a removal that a crash cut short. A manifest that is damaged or not signed by the
    /// key is set aside: see damaged(). `signer` may be null (then nothing is signed or
    /// verified) and must outlive it.
    [[nodiscard]] static Result<std::unique_ptr<PointStore>> open(FileSystem& files, std::filesystem::path dir,
                                                                  const Signer* signer);

    /// Writes a manifest durably. The same point again (same name and hash) is no error; another one of this name is
    /// Errc::exists.
    [[nodiscard]] Result<void> publish(const Manifest& manifest);
    /// Changes launchable and digests of a point.
    [[nodiscard]] Result<void> set_proof(std::string_view name, Launchable launchable,
                                         std::map<std::uint16_t, std::string> digests);
    /// Removes a point (its chunks go with the next collection). Errc::busy while a PointReader holds it.
    [[nodiscard]] Result<void> remove(std::string_view name, std::uint64_t now_ns);

    [[nodiscard]] Result<Manifest> find(std::string_view name) const;
    /// By serial, ascending.
    [[nodiscard]] std::vector<Manifest> list() const;
    [[nodiscard]] std::size_t size() const;
    /// Generations of a disk that points hold, ascending.
    [[nodiscard]] std::vector<Generation> generations(std::uint16_t slot) const;
    /// The newest point at or below a mark: where a journal replay to the mark begins.
    [[nodiscard]] Result<Manifest> nearest(std::uint64_t mark) const;

    /// Manifests that cannot be used, with the reason. While there is one nothing is collected.
    struct Damaged {
        std::filesystem::path path;
        Error error;
    };
    [[nodiscard]] std::vector<Damaged> damaged() const;

    /// Checks the chain from the first to `head_serial` (0: the newest there is): every serial is a manifest or a removal,
    /// and each names the hash of the one before.
    [[nodiscard]] Result<void> verify_chain(std::uint64_t head_serial, std::string_view head_hash) const;

private:
    PointStore(FileSystem& files, std::filesystem::path dir, const Signer* signer);
    [[nodiscard]] Result<void> load();
    [[nodiscard]] Result<void> load_removed();
    [[nodiscard]] Result<Manifest> load_one(const std::string& file) const;
    [[nodiscard]] std::filesystem::path path_of(std::string_view name) const;

    FileSystem& files_;
    const std::filesystem::path dir_;
    const Signer* signer_;
    mutable std::mutex lock_;
    std::map<std::string, Manifest, std::less<>> points_;
    std::vector<Damaged> damaged_;
    std::vector<RemovedPoint> removed_;
    std::uint64_t log_bytes_ = 0;
};

}  // namespace blkferry::store
