// SPDX-License-Identifier: Apache-2.0
#include "server/log.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace blkferry::server {

std::string_view to_string(Level level) noexcept {
    switch (level) {
        case Level::debug: return "debug";
        case Level::info: return "info";
        case Level::warn: return "warn";
        case Level::error: return "error";
    }
    return "unknown";
}

Result<Level> parse_level(std::string_view text) {
    for (const Level l : {Level::debug, Level::info, Level::warn, Level::error})
        if (text == to_string(l))
            return l;
    return fail(Errc::invalid, fmt::format("'{}' is not a log level; use debug, info, warn or error", text.substr(0, 32)));
}

namespace {

class StderrLog final : public Log {
public:
    StderrLog()
        : systemd_(std::getenv("JOURNAL_STREAM") != nullptr),
          logger_("blkferry-server", std::make_shared<spdlog::sinks::stderr_sink_mt>()) {
        logger_.set_level(spdlog::level::trace);
        logger_.set_pattern(systemd_ ? "%v" : "%Y-%m-%dT%H:%M:%S.%e%z level=%l %v");
        logger_.flush_on(spdlog::level::trace);
    }
    void write(Level level, std::string_view line) override {
        static constexpr std::array<spdlog::level::level_enum, 4> levels{spdlog::level::debug, spdlog::level::info,
                                                                         spdlog::level::warn, spdlog::level::err};
        static constexpr std::array<const char*, 4> prefixes{"<7>", "<6>", "<4>", "<3>"};
        const auto i = static_cast<std::size_t>(level);
        if (systemd_)
            logger_.log(levels[i], "{}{}", prefixes[i], line);
        else
            logger_.log(levels[i], "{}", line);
    }

private:
    bool systemd_;
    spdlog::logger logger_;
};

}  // namespace

std::unique_ptr<Log> make_stderr_log() {
    return std::make_unique<StderrLog>();
}

std::string quote(std::string_view text) {
    constexpr std::size_t bytes_max = 512;
    const bool plain = !text.empty() && text.size() <= bytes_max && std::ranges::all_of(text, [](char c) {
        return c > ' ' && c < '\x7f' && c != '"' && c != '\\' && c != '=';
    });
    if (plain)
        return std::string(text);
    std::string out = "\"";
    for (const char c : text.substr(0, bytes_max)) {
        const auto u = static_cast<unsigned char>(c);
        if (c == '"' || c == '\\')
            out += {'\\', c};
        else if (u < 0x20 || u == 0x7f)
            out += fmt::format("\\x{:02x}", u);
        else
            out += c;
    }
    return out + (text.size() > bytes_max ? "...\"" : "\"");
}

}  // namespace blkferry::server
