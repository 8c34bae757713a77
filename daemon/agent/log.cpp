// SPDX-License-Identifier: Apache-2.0
#include "agent/log.hpp"

#include <cstdlib>

#include <fmt/format.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace blkferry::agent {

namespace {

/// "<6>" and so on: what systemd takes as the priority of a line.
class PriorityFlag final : public spdlog::custom_flag_formatter {
public:
    void format(const spdlog::details::log_msg& m, const std::tm&, spdlog::memory_buf_t& out) override {
        const char* text = m.level >= spdlog::level::err     ? "<3>"
                           : m.level == spdlog::level::warn  ? "<4>"
                           : m.level == spdlog::level::debug ? "<7>"
                                                             : "<6>";
        out.append(text, text + 3);
    }
    [[nodiscard]] std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<PriorityFlag>(); }
};

}  // namespace

struct Log::Impl {
    spdlog::logger logger{"agent", std::make_shared<spdlog::sinks::stderr_sink_st>()};
};

Log::Log() : impl_(std::make_unique<Impl>()) {
    auto formatter = std::make_unique<spdlog::pattern_formatter>();
    if (std::getenv("JOURNAL_STREAM") != nullptr)
        formatter->add_flag<PriorityFlag>('P').set_pattern("%P%v");
    else
        formatter->set_pattern("%Y-%m-%dT%H:%M:%S.%e level=%l %v");
    impl_->logger.set_formatter(std::move(formatter));
    impl_->logger.flush_on(spdlog::level::trace);
}

Log::~Log() = default;

void Log::set_level(config::LogLevel level) {
    switch (level) {
        case config::LogLevel::error: impl_->logger.set_level(spdlog::level::err); break;
        case config::LogLevel::warning: impl_->logger.set_level(spdlog::level::warn); break;
        case config::LogLevel::info: impl_->logger.set_level(spdlog::level::info); break;
        case config::LogLevel::debug: impl_->logger.set_level(spdlog::level::debug); break;
    }
}

void Log::debug(std::string_view line) {
    impl_->logger.debug("{}", line);
}
void Log::info(std::string_view line) {
    impl_->logger.info("{}", line);
}
void Log::warn(std::string_view line) {
    impl_->logger.warn("{}", line);
}
void Log::error(std::string_view line) {
    impl_->logger.error("{}", line);
}

std::string quote_value(std::string_view text) {
    std::string out = "\"";
    for (const char c : text.substr(0, 1024)) {
        if (c == '"' || c == '\\')
            out += '\\';
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
            out += fmt::format("\\x{:02x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
        else
            out += c;
    }
    return out + '"';
}

}  // namespace blkferry::agent
