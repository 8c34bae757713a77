// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/file.hpp"
#include "store/manifest.hpp"
#include "store/removed_log.hpp"

namespace blkferry::store {

/// The newest point that was ever made, as the checkpoint knows it.
struct PointHead {
    std::uint64_t serial = 0;
    std::string hash;
};

/// The recovery points of one source: `points/<name>.json` and `points/removed.log`. Thread-safe.
class PointStore {
public:
    /// Who opens it: the source's store, or somebody who only looks and must change nothing.
    enum class Access : std::uint8_t { own, look };

    /// Reads every manifest and (its owner) finishes a removal that a crash cut short. A manifest that is damaged or not signed
    /// by the key is set aside: see damaged(). `signer` may be null (then nothing is signed or verified) and must outlive it.
    [[nodiscard]] static Result<std::unique_ptr<PointStore>> open(FileSystem& files, std::filesystem::path dir,
                                                                  const Signer* signer, Access access = Access::own);

    /// Writes a manifest durably. The same point again (same name and hash) is no error; another one of this name is
    /// Errc::exists.
    [[nodiscard]] Result<void> publish(const Manifest& manifest);
    /// Changes launchable and digests of a point.
    [[nodiscard]] Result<void> set_proof(std::string_view name, Launchable launchable,
                                         std::map<std::uint16_t, std::string> digests);
    /// Removes a point (its chunks go with the next collection). Errc::busy while a PointReader holds it. A damaged one is
    /// removed under the name of its file; its place in the chain is closed by what its neighbours (or `head`) know of it.
    /// All or nothing: without an error it is gone for good; after one it is there and stays, unless the text of the error says that
    /// it is not decided (the disk failed, and failed again when the removal was taken back): then the next start tells.
    [[nodiscard]] Result<void> remove(std::string_view name, std::uint64_t now_ns, const PointHead& head = {});

    [[nodiscard]] Result<Manifest> find(std::string_view name) const;
    /// By serial, ascending.
    [[nodiscard]] std::vector<Manifest> list() const;
    [[nodiscard]] std::size_t size() const;
    /// Generations of a disk that points hold, ascending.
    [[nodiscard]] std::vector<Generation> generations(std::uint16_t slot) const;
    /// The newest point at or below a mark: where a journal replay to the mark begins.
    [[nodiscard]] Result<Manifest> nearest(std::uint64_t mark) const;

    /// The newest point that is known: there, or removed.
    [[nodiscard]] PointHead head() const;

    /// Manifests that could not be used when the store was opened. Nobody knows which chunks they need.
    struct Damaged {
        std::string name;  ///< for remove()
        std::filesystem::path path;
        Error error;
    };
    [[nodiscard]] std::vector<Damaged> damaged() const;
    /// Why removed.log could not be read in full when the store was opened.
    [[nodiscard]] const std::optional<Error>& log_damage() const noexcept { return log_damage_; }

    /// Checks the chain from the first to `head_serial` (0: the newest there is): every serial is a manifest or a removal,
    /// and each names the hash of the one before.
    [[nodiscard]] Result<void> verify_chain(std::uint64_t head_serial, std::string_view head_hash) const;

private:
    /// What ties a point into the chain.
    struct Link {
        std::uint64_t last = 0;  ///< serial; several removed points may be one link
        std::string name;
        std::string hash;
        std::string parent_hash;
    };
    using Chain = std::map<std::uint64_t, Link>;

    PointStore(FileSystem& files, std::filesystem::path dir, const Signer* signer);
    [[nodiscard]] Result<void> load(Access access);
    [[nodiscard]] Result<void> remove_damaged(std::size_t index, std::uint64_t now_ns, const PointHead& head);
    [[nodiscard]] Result<void> log_removal(const RemovedPoint& line);
    void clear_leftovers();
    [[nodiscard]] Result<Chain> chain() const;
    [[nodiscard]] Result<Manifest> load_one(const std::string& file) const;
    [[nodiscard]] std::filesystem::path path_of(std::string_view name) const;

    FileSystem& files_;
    const std::filesystem::path dir_;
    const Signer* signer_;
    mutable std::mutex lock_;
    std::map<std::string, Manifest, std::less<>> points_;
    std::vector<Damaged> damaged_;
    std::vector<std::filesystem::path> leftovers_;  ///< files of removed points that the disk would not remove
    RemovedLog removed_;
    std::optional<Error> log_damage_;
};

}  // namespace blkferry::store
