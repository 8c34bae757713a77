// SPDX-License-Identifier: Apache-2.0
#include "tools/offline.hpp"

#include <fmt/format.h>

#include "base/fd.hpp"
#include "store/export.hpp"
#include "store/manifest.hpp"
#include "store/store.hpp"
#include "tls/identity.hpp"

namespace blkferry::tools {

namespace {

Result<std::uint16_t> only_slot(const std::filesystem::path& source_dir, const std::string& point) {
    BLKFERRY_TRY_ASSIGN(const std::string text, read_text_file(source_dir / "points" / (point + ".json"), store::manifest_bytes_max));
    BLKFERRY_TRY_ASSIGN(const auto decoded, store::decode_manifest(text, nullptr));
    if (decoded.manifest.disks.size() == 1)
        return decoded.manifest.disks.front().slot;
    std::string slots;
    for (const auto& disk : decoded.manifest.disks)
        slots += fmt::format("{}{}", slots.empty() ? "" : ", ", disk.slot);
    return fail(Errc::invalid, fmt::format("{}: the point has the disks {}: choose one by --slot", point, slots));
}

}  // namespace

Result<OfflineExport> export_offline(const std::filesystem::path& store, const std::string& source,
                                     const std::string& point, std::optional<unsigned> slot,
                                     const std::filesystem::path& file,
                                     const std::function<void(std::uint64_t, std::uint64_t)>& progress) {
    BLKFERRY_TRY(tls::check_name(source));
    BLKFERRY_TRY(tls::check_name(point));
    const auto dir = store::Store::source_dir(store, source);
    auto chosen = static_cast<std::uint16_t>(slot.value_or(0));
    if (!slot) {
        BLKFERRY_TRY_ASSIGN(chosen, only_slot(dir, point));
    }
    BLKFERRY_TRY_ASSIGN(const auto reader, store::PointReader::open(dir, point, chosen, nullptr));
    const std::uint64_t total = reader->bytes();
    BLKFERRY_TRY_ASSIGN(const auto result, store::export_image(*reader, file, [&](std::uint64_t done) {
                            progress(done, total);
                            return true;
                        }));
    OfflineExport out{result.bytes, {}};
    for (const std::byte b : result.sha256)
        out.sha256 += fmt::format("{:02x}", std::to_integer<unsigned>(b));
    return out;
}

}  // namespace blkferry::tools
