// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "proto/enrolment.hpp"
#include "tls/request.hpp"

namespace blkferry::agent {

/// How this source's certificate is replaced before it ends.
///
///     waiting --2/3 of its life over, session--> asked --CERT_REPLY--> writing --> waiting (done, or again after a while)
///
/// The swap is one rename: where key and certificate are one file (as `blkferry enroll` makes it) a new key comes with the new certificate,
/// else the key stays.
class Renewal {
public:
    struct Files {
        std::filesystem::path cert;
        std::filesystem::path key;
        std::filesystem::path ca;
        [[nodiscard]] bool one_file() const { return cert == key; }
    };

    /// The request to send, with its key. Reads and makes keys: not for long.
    [[nodiscard]] static Result<tls::Request> begin(const Files& files, const tls::Identity& identity);
    /// Checks what came back and swaps it in, durably. Waits for the disk.
    [[nodiscard]] static Result<void> finish(const Files& files, const tls::Identity& identity, const tls::Request& request,
                                             const proto::CertReply& reply);
};

}  // namespace blkferry::agent
