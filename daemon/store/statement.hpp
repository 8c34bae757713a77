// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.hpp"

struct sqlite3;
struct sqlite3_stmt;

namespace blkferry::store {

/// The only owner of an SQLite statement; move-only. Used as: prepare, bind in order, then step() until it says false.
class Statement {
public:
    [[nodiscard]] static Result<Statement> prepare(sqlite3* db, std::string_view sql);
    Statement(Statement&& other) noexcept : stmt_(std::exchange(other.stmt_, nullptr)) {}
    Statement& operator=(Statement&& other) noexcept;
    Statement(const Statement&) = delete;
    Statement& operator=(const Statement&) = delete;
    ~Statement();

    /// Binds the next parameter.
    Statement& bind(std::uint64_t value) noexcept;
    Statement& bind(std::string_view text) noexcept;
    /// True: a row is there. False: done.
    [[nodiscard]] Result<bool> step();
    /// Runs a statement that gives no rows.
    [[nodiscard]] Result<void> run();
    [[nodiscard]] std::uint64_t integer(int column) const noexcept;
    [[nodiscard]] std::string text(int column) const;

private:
    explicit Statement(sqlite3_stmt* stmt) noexcept : stmt_(stmt) {}
    sqlite3_stmt* stmt_ = nullptr;
    int next_ = 1;
    int bad_ = 0;
};

}  // namespace blkferry::store
