// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "proto/enrolment.hpp"
#include "server/audit.hpp"
#include "server/tokens.hpp"
#include "tls/context.hpp"
#include "tls/pki.hpp"

namespace blkferry::server {

/// The server as its sources' CA: tokens, first certificates, renewals, revocation; each of them in the audit file. All but open_now() and
/// the counters belongs to one worker thread, for it waits for the disk.
class Enrolment {
public:
    struct Options {
        std::filesystem::path pki;         ///< folder of the CA (tls::pki), which this process may write
        std::filesystem::path audit;       ///< file
        std::uint64_t life_ms = 0;         ///< of the certificates that it makes
        std::string server;                ///< name of this server
    };
    /// Who asks, for the audit file.
    struct Asker {
        std::string address;
        bool name_taken = false;           ///< there is a replica of this name
    };
    struct Counters {
        std::atomic<std::uint64_t> enrolled{0};
        std::atomic<std::uint64_t> refused{0};
        std::atomic<std::uint64_t> renewed{0};
        std::atomic<std::uint64_t> revoked{0};  ///< certificates
    };

    /// The CA and its revocation list must be readable; a missing list is made.
    [[nodiscard]] static Result<std::unique_ptr<Enrolment>> open(Options options, const Clock& clock, Log& log);
    /// Makes the CA's revocation list if there is none.
    [[nodiscard]] static Result<void> prepare(const std::filesystem::path& pki);

    /// A token may be used now, so a stranger may ask. Any thread.
    [[nodiscard]] bool open_now() const noexcept;
    [[nodiscard]] const Counters& counters() const noexcept { return counters_; }

    struct NewToken {
        std::string token;  ///< what the administrator carries over
        std::string id;
        std::uint64_t expires_ms = 0;
    };
    [[nodiscard]] Result<NewToken> make_token(const std::string& source, std::uint64_t life_ms, const std::string& by);
    [[nodiscard]] Result<void> revoke_token(const std::string& id, const std::string& by);
    [[nodiscard]] const std::vector<StoredToken>& tokens() const noexcept { return tokens_.list(); }

    /// A stranger's CERT_REQUEST. A refusal is in the reply.
    [[nodiscard]] proto::CertReply enrol(const proto::CertRequest& request, const Asker& asker);
    /// That of a source in its session, which showed the certificate `serial` of `name`.
    [[nodiscard]] proto::CertReply renew(const proto::CertRequest& request, const std::string& name, const std::string& serial,
                                         const std::string& address);
    /// A new certificate for this server itself, in place of the one in `files` and of the same identity: checked, in the audit file, swapped
    /// in by one rename. On an error the old one stays.
    [[nodiscard]] Result<void> renew_own(const tls::Files& files, const tls::Identity& identity, std::uint64_t life_ms);
    /// Revokes every certificate of a source and the tokens for it; gives the serials. Errc::not_found: it has none that is valid.
    [[nodiscard]] Result<std::vector<std::string>> revoke(const std::string& source, const std::string& by);
    /// Tells of tokens that expired.
    void sweep();

    static constexpr std::uint64_t token_life_ms_max = 30ULL * 86'400'000;

private:
    Enrolment(Options options, const Clock& clock, Log& log, TokenStore tokens);
    [[nodiscard]] Result<std::string> grant(const proto::CertRequest& request, const Asker& asker);
    [[nodiscard]] Result<std::string> grant_again(const StoredToken& token, const proto::CertRequest& request, const Asker& asker);
    [[nodiscard]] Result<std::string> grant_renewal(const proto::CertRequest& request, const std::string& name, const std::string& serial,
                                                    const std::string& address);
    [[nodiscard]] Result<bool> has_certificate(const std::string& name) const;
    [[nodiscard]] proto::CertReply reply(Result<std::string> cert) const;
    [[nodiscard]] std::uint64_t now_ms() const noexcept { return clock_.realtime_ns() / 1'000'000; }
    void look() noexcept;

    const Options options_;
    const Clock& clock_;
    Log& log_;
    TokenStore tokens_;
    Audit audit_;
    Counters counters_;
    std::atomic<std::uint64_t> usable_until_ms_{0};
    std::map<std::string, std::uint64_t> renewed_ms_;  ///< by source, of this process
};

}  // namespace blkferry::server
