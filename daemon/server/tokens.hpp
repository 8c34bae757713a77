// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace blkferry::server {

/// A one-time token as it is kept: its secret is there as a hash only.
struct StoredToken {
    enum class State : std::uint8_t { open, used, expired, revoked };

    std::string id;
    std::string secret_sha256;    ///< hex
    std::string source;           ///< name that it is for; empty: the source names itself, with a name that is new here
    std::uint64_t made_ms = 0;    ///< since 1970
    std::uint64_t expires_ms = 0;
    std::uint64_t used_ms = 0;    ///< 0: not used
    std::string used_by;          ///< name that was enrolled
    std::string key_sha256;       ///< of the public key that was enrolled with it
    std::string serial;           ///< of its certificate
    bool revoked = false;
    bool expiry_told = false;     ///< its end without use is in the audit file

    [[nodiscard]] State state(std::uint64_t now_ms) const noexcept;
    bool operator==(const StoredToken&) const = default;
};

[[nodiscard]] std::string_view to_string(StoredToken::State state) noexcept;

/// The tokens of a server, in a file of mode 0600 that is replaced durably by every change. One thread at a time; time comes in.
class TokenStore {
public:
    static constexpr std::size_t open_max = 64;
    static constexpr std::size_t kept_max = 256;  ///< with used, expired and revoked ones; the oldest of these go

    /// Reads the file; none is an empty store. Errc::corrupt: it is not as this class writes it.
    [[nodiscard]] static Result<TokenStore> open(std::filesystem::path file);

    struct Made {
        std::string id;
        std::string secret;  ///< told once, kept nowhere
    };
    /// Errc::no_space: open_max are open.
    [[nodiscard]] Result<Made> make(std::string source, std::uint64_t life_ms, std::uint64_t now_ms);
    /// Ends an open token; Errc::not_found, or Errc::conflict if it is not open.
    [[nodiscard]] Result<void> revoke(std::string_view id, std::uint64_t now_ms);
    /// Ends the open ones that are for a source; gives their ids.
    [[nodiscard]] Result<std::vector<std::string>> revoke_of(std::string_view source, std::uint64_t now_ms);

    /// The token if its secret is right and it is neither expired nor revoked. One that was used is given too: its key may ask again, for the
    /// answer may have been lost. Errc::denied says why not; an unknown id and a wrong secret look alike.
    [[nodiscard]] Result<StoredToken> check(std::string_view id, std::string_view secret, std::uint64_t now_ms) const;
    /// Marks it used.
    [[nodiscard]] Result<void> use(std::string_view id, std::string_view source, std::string_view key_sha256, std::string_view serial,
                                   std::uint64_t now_ms);
    /// Those that expired unused and were not told of yet; they are told with this.
    [[nodiscard]] Result<std::vector<StoredToken>> take_expired(std::uint64_t now_ms);

    [[nodiscard]] const std::vector<StoredToken>& list() const noexcept { return tokens_; }
    /// When the last one that may be used ends; 0: none may.
    [[nodiscard]] std::uint64_t usable_until_ms(std::uint64_t now_ms) const noexcept;

private:
    explicit TokenStore(std::filesystem::path file) : file_(std::move(file)) {}
    [[nodiscard]] Result<void> save(std::vector<StoredToken> next);

    std::filesystem::path file_;
    std::vector<StoredToken> tokens_;  ///< by age
};

}  // namespace blkferry::server
