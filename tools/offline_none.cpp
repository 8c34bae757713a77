// SPDX-License-Identifier: Apache-2.0
#include "tools/offline.hpp"

namespace blkferry::tools {

Result<OfflineExport> export_offline(const std::filesystem::path&, const std::string&, const std::string&,
                                     std::optional<unsigned>, const std::filesystem::path&,
                                     const std::function<void(std::uint64_t, std::uint64_t)>&) {
    return fail(Errc::unsupported, "this build of blkferry cannot read a store by itself: ask the server (leave --store out)");
}

}  // namespace blkferry::tools
