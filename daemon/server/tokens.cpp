// SPDX-License-Identifier: Apache-2.0
#include "server/tokens.hpp"

#include <algorithm>
#include <array>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "base/fd.hpp"
#include "base/hash.hpp"
#include "proto/enrolment.hpp"

namespace blkferry::server {

namespace {

using nlohmann::json;
constexpr std::size_t file_bytes_max = 1U << 20;

std::string hex(std::span<const std::byte> bytes) {
    std::string out;
    for (const std::byte b : bytes)
        out += fmt::format("{:02x}", std::to_integer<unsigned>(b));
    return out;
}

Result<std::string> random_hex(std::size_t digits) {
    std::array<unsigned char, 64> raw{};
    BLKFERRY_ASSERT(digits % 2 == 0 && digits / 2 <= raw.size());
    if (RAND_bytes(raw.data(), static_cast<int>(digits / 2)) != 1)
        return fail(Errc::io, "OpenSSL has no random numbers");
    return hex(std::as_bytes(std::span(raw)).first(digits / 2));
}

std::string hash_of(std::string_view secret) { return hex(sha256(std::as_bytes(std::span(secret)))); }

json to_json(const StoredToken& t) {
    return {{"id", t.id},           {"secret_sha256", t.secret_sha256}, {"source", t.source},         {"made_ms", t.made_ms},
            {"expires_ms", t.expires_ms}, {"used_ms", t.used_ms},       {"used_by", t.used_by},       {"key_sha256", t.key_sha256},
            {"serial", t.serial},   {"revoked", t.revoked},             {"expiry_told", t.expiry_told}};
}

StoredToken from_json(const json& j) {
    StoredToken t;
    j.at("id").get_to(t.id);
    j.at("secret_sha256").get_to(t.secret_sha256);
    j.at("source").get_to(t.source);
    j.at("made_ms").get_to(t.made_ms);
    j.at("expires_ms").get_to(t.expires_ms);
    j.at("used_ms").get_to(t.used_ms);
    j.at("used_by").get_to(t.used_by);
    j.at("key_sha256").get_to(t.key_sha256);
    j.at("serial").get_to(t.serial);
    j.at("revoked").get_to(t.revoked);
    j.at("expiry_told").get_to(t.expiry_told);
    return t;
}

}  // namespace

std::string_view to_string(StoredToken::State state) noexcept {
    switch (state) {
        case StoredToken::State::open: return "open";
        case StoredToken::State::used: return "used";
        case StoredToken::State::expired: return "expired";
        case StoredToken::State::revoked: return "revoked";
    }
    return "unknown";
}

StoredToken::State StoredToken::state(std::uint64_t now_ms) const noexcept {
    if (revoked)
        return State::revoked;
    if (used_ms != 0)
        return State::used;
    return now_ms >= expires_ms ? State::expired : State::open;
}

Result<TokenStore> TokenStore::open(std::filesystem::path file) {
    TokenStore store(std::move(file));
    std::error_code err;
    if (!std::filesystem::exists(store.file_, err) && !err)
        return store;
    BLKFERRY_TRY_ASSIGN(const std::string text, read_text_file(store.file_, file_bytes_max));
    try {
        const json whole = json::parse(text);
        for (const json& j : whole.at("tokens"))
            store.tokens_.push_back(from_json(j));
    } catch (const json::exception& e) {
        return fail(Errc::corrupt, fmt::format("{}: not a list of tokens ({}); remove it, open tokens are void then", store.file_.string(), e.what()));
    }
    return store;
}

/// The file first: what it does not say has not happened.
Result<void> TokenStore::save(std::vector<StoredToken> next) {
    json list = json::array();
    for (const StoredToken& t : next)
        list.push_back(to_json(t));
    BLKFERRY_TRY(write_file_durable(file_, json{{"tokens", std::move(list)}}.dump(1) + "\n", 0600));
    tokens_ = std::move(next);
    return {};
}

Result<TokenStore::Made> TokenStore::make(std::string source, std::uint64_t life_ms, std::uint64_t now_ms) {
    const auto is_open = [&](const StoredToken& t) { return t.state(now_ms) == StoredToken::State::open; };
    if (std::ranges::count_if(tokens_, is_open) >= static_cast<std::ptrdiff_t>(open_max))
        return fail(Errc::no_space, fmt::format("{} tokens are open, no more are allowed: revoke some", open_max));
    Made made;
    BLKFERRY_TRY_ASSIGN(made.id, random_hex(proto::token_id_bytes));
    BLKFERRY_TRY_ASSIGN(made.secret, random_hex(proto::token_secret_bytes));
    std::vector<StoredToken> next = tokens_;
    while (next.size() >= kept_max)
        next.erase(std::ranges::find_if_not(next, is_open));
    StoredToken t;
    t.id = made.id;
    t.secret_sha256 = hash_of(made.secret);
    t.source = std::move(source);
    t.made_ms = now_ms;
    t.expires_ms = now_ms + life_ms;
    next.push_back(std::move(t));
    BLKFERRY_TRY(save(std::move(next)));
    return made;
}

Result<void> TokenStore::revoke(std::string_view id, std::uint64_t now_ms) {
    std::vector<StoredToken> next = tokens_;
    const auto it = std::ranges::find(next, id, &StoredToken::id);
    if (it == next.end())
        return fail(Errc::not_found, "there is no token of this id ('blkferry server tokens' lists them)");
    if (it->state(now_ms) != StoredToken::State::open)
        return fail(Errc::conflict, fmt::format("the token is {} already", to_string(it->state(now_ms))));
    it->revoked = true;
    return save(std::move(next));
}

Result<std::vector<std::string>> TokenStore::revoke_of(std::string_view source, std::uint64_t now_ms) {
    std::vector<StoredToken> next = tokens_;
    std::vector<std::string> ids;
    for (StoredToken& t : next) {
        // A used one too: it still answers to the key that it was used with.
        if (t.revoked || now_ms >= t.expires_ms || (t.source != source && t.used_by != source))
            continue;
        t.revoked = true;
        ids.push_back(t.id);
    }
    if (!ids.empty())
        BLKFERRY_TRY(save(std::move(next)));
    return ids;
}

Result<StoredToken> TokenStore::check(std::string_view id, std::string_view secret, std::uint64_t now_ms) const {
    const auto it = std::ranges::find(tokens_, id, &StoredToken::id);
    const std::string hash = hash_of(secret);
    if (it == tokens_.end() || it->secret_sha256.size() != hash.size() ||
        CRYPTO_memcmp(it->secret_sha256.data(), hash.data(), hash.size()) != 0)
        return fail(Errc::denied, "the token is not known here");
    if (it->revoked)
        return fail(Errc::denied, "the token is revoked");
    if (now_ms >= it->expires_ms)
        return fail(Errc::denied, "the token has expired: ask for a new one");
    return *it;
}

Result<void> TokenStore::use(std::string_view id, std::string_view source, std::string_view key_sha256, std::string_view serial,
                             std::uint64_t now_ms) {
    std::vector<StoredToken> next = tokens_;
    const auto it = std::ranges::find(next, id, &StoredToken::id);
    BLKFERRY_ASSERT(it != next.end() && it->used_ms == 0);
    it->used_ms = now_ms;
    it->used_by = source;
    it->key_sha256 = key_sha256;
    it->serial = serial;
    return save(std::move(next));
}

Result<std::vector<StoredToken>> TokenStore::take_expired(std::uint64_t now_ms) {
    std::vector<StoredToken> next = tokens_;
    std::vector<StoredToken> out;
    for (StoredToken& t : next) {
        if (t.expiry_told || t.state(now_ms) != StoredToken::State::expired)
            continue;
        t.expiry_told = true;
        out.push_back(t);
    }
    if (!out.empty())
        BLKFERRY_TRY(save(std::move(next)));
    return out;
}

std::uint64_t TokenStore::usable_until_ms(std::uint64_t now_ms) const noexcept {
    std::uint64_t until = 0;
    for (const StoredToken& t : tokens_)
        if (!t.revoked && now_ms < t.expires_ms)
            until = std::max(until, t.expires_ms);
    return until;
}

}  // namespace blkferry::server
