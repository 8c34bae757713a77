// SPDX-License-Identifier: Apache-2.0
#include "store/statement.hpp"

#include <bit>

#include <fmt/format.h>
#include <sqlite3.h>

namespace blkferry::store {

namespace {
std::unexpected<Error> sqlite_error(sqlite3* db, int code) {
    Errc kind = Errc::io;
    switch (code & 0xFF) {
        case SQLITE_FULL: kind = Errc::no_space; break;
        case SQLITE_CORRUPT:
        case SQLITE_NOTADB: kind = Errc::corrupt; break;
        case SQLITE_BUSY:
        case SQLITE_LOCKED: kind = Errc::busy; break;
        case SQLITE_CONSTRAINT: kind = Errc::conflict; break;
        default: break;
    }
    return fail(kind, fmt::format("catalogue: {}", db != nullptr ? sqlite3_errmsg(db) : sqlite3_errstr(code)));
}
}  // namespace

Result<Statement> Statement::prepare(sqlite3* db, std::string_view sql) {
    sqlite3_stmt* stmt = nullptr;
    const int code = sqlite3_prepare_v2(db, sql.data(), static_cast<int>(sql.size()), &stmt, nullptr);
    if (code != SQLITE_OK)
        return sqlite_error(db, code);
    return Statement(stmt);
}

Statement& Statement::operator=(Statement&& other) noexcept {
    if (this != &other) {
        sqlite3_finalize(stmt_);
        stmt_ = std::exchange(other.stmt_, nullptr);
        next_ = other.next_;
        bad_ = other.bad_;
    }
    return *this;
}

Statement::~Statement() {
    sqlite3_finalize(stmt_);
}

Statement& Statement::bind(std::uint64_t value) noexcept {
    const int code = sqlite3_bind_int64(stmt_, next_++, std::bit_cast<std::int64_t>(value));
    bad_ = bad_ != SQLITE_OK ? bad_ : code;
    return *this;
}

Statement& Statement::bind(std::string_view text) noexcept {
    // A view without memory is an empty text; SQLite would bind NULL for its pointer.
    const char* p = text.data() == nullptr ? "" : text.data();
    const int code = sqlite3_bind_text64(stmt_, next_++, p, text.size(), nullptr, SQLITE_UTF8);
    bad_ = bad_ != SQLITE_OK ? bad_ : code;
    return *this;
}

Result<bool> Statement::step() {
    if (bad_ != SQLITE_OK)
        return sqlite_error(sqlite3_db_handle(stmt_), bad_);
    const int code = sqlite3_step(stmt_);
    if (code == SQLITE_ROW)
        return true;
    if (code == SQLITE_DONE)
        return false;
    return sqlite_error(sqlite3_db_handle(stmt_), code);
}

Result<void> Statement::run() {
    BLKFERRY_TRY_ASSIGN(const bool row, step());
    BLKFERRY_ASSERT(!row);
    return {};
}

std::uint64_t Statement::integer(int column) const noexcept {
    return std::bit_cast<std::uint64_t>(static_cast<std::int64_t>(sqlite3_column_int64(stmt_, column)));
}

std::string Statement::text(int column) const {
    const auto* data = sqlite3_column_text(stmt_, column);
    const int bytes = sqlite3_column_bytes(stmt_, column);
    return data == nullptr ? std::string() : std::string(reinterpret_cast<const char*>(data), static_cast<std::size_t>(bytes));
}

}  // namespace blkferry::store
