// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "store/catalogue.hpp"
#include "store/signer.hpp"
#include "store/snapshot_engine.hpp"
#include "store/source_store.hpp"

namespace blkferry::store {

struct StoreOptions {
    std::string engine = "auto";  ///< "auto", "reflink" or "copy"
    /// Signs manifests; empty: keys/manifest.pem, made at first use. A store refuses another key than the one it began with.
    std::filesystem::path manifest_key;
    SourceOptions source;
};

/// The server's store folder:
///
///     store.id   lock   catalogue.sqlite   keys/manifest.pem   keys/manifest.pub.pem
///     sources/<name>/checkpoint.json  journal/  disks/<slot>/  maps/  points/
class Store {
public:
    /// Opens or makes it and takes its lock: Errc::busy if another server has it. A missing or unsound catalogue is rebuilt.
    [[nodiscard]] static Result<std::unique_ptr<Store>> open(std::filesystem::path dir, const Clock& clock,
                                                             StoreOptions options);
    ~Store();

    /// Names of all sources that have a folder, sorted.
    [[nodiscard]] Result<std::vector<std::string>> sources() const;
    /// Opens (or makes) one source. At most one SourceStore per name at a time; it must end before the Store.
    [[nodiscard]] Result<std::unique_ptr<SourceStore>> open_source(std::string_view name);

    [[nodiscard]] const Uuid& id() const noexcept { return id_; }
    [[nodiscard]] const SnapshotEngine& engine() const noexcept { return *engine_; }
    [[nodiscard]] const Signer& signer() const noexcept { return *signer_; }
    [[nodiscard]] Catalogue& catalogue() noexcept { return *catalogue_; }
    /// Where a source lives, also for PointReader.
    [[nodiscard]] static std::filesystem::path source_dir(const std::filesystem::path& store, std::string_view name);

private:
    Store(std::filesystem::path dir, const Clock& clock, StoreOptions options);
    [[nodiscard]] Result<void> load();
    [[nodiscard]] Result<void> load_signer();

    const std::filesystem::path dir_;
    const Clock& clock_;
    const StoreOptions options_;
    Uuid id_;
    Fd lock_;
    std::unique_ptr<FileSystem> files_;
    std::unique_ptr<SnapshotEngine> engine_;
    std::unique_ptr<Signer> signer_;
    std::unique_ptr<Catalogue> catalogue_;
};

}  // namespace blkferry::store
