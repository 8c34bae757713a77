// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "base/fd.hpp"
#include "control/message.hpp"

namespace blkferry::control {

/// A blocking client for programs that wait anyway.
class Client {
public:
    /// Errc::not_found / closed / denied: nobody answers there (the text says how to start the daemon).
    [[nodiscard]] static Result<Client> connect(const std::filesystem::path& socket);

    /// Sends a request and waits for its last line. `on_line` gets the lines before it; may be empty.
    /// `silence_ms_max`: no line for this long is Errc::timeout; 0 waits for ever.
    /// An answer with "ok": false becomes an Error with its code and text.
    [[nodiscard]] Result<Json> call(const Json& request, const std::function<void(const Json&)>& on_line = {},
                                    std::uint64_t silence_ms_max = 60'000);

private:
    explicit Client(Fd socket, std::string name) noexcept : socket_(std::move(socket)), name_(std::move(name)) {}
    [[nodiscard]] Result<std::string> read_line(std::uint64_t silence_ms_max);

    Fd socket_;
    std::string name_;
    std::string buffer_;
};

}  // namespace blkferry::control
