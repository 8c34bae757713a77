// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <string>

#include "config/config.hpp"
#include "config/units.hpp"

/// Configuration files and the numbers that people write. The first byte chooses the reader. What is accepted is inside of
/// its range, reads the same twice, and is written so that it reads the same again.
using namespace blkferry;
using namespace blkferry::config;

namespace {

template <class Parse>
void check_file(const std::string& text, Parse parse) {
    const auto c = parse(text, "file.toml");
    if (!c) {
        BLKFERRY_ASSERT(c.error().text.starts_with("file.toml"));
        return;
    }
    BLKFERRY_ASSERT(parse(text, "other.toml").value() == *c);
    BLKFERRY_ASSERT(compare(*c, *c).changed.empty());
    auto running = *c;
    take_over(running, *c);
    BLKFERRY_ASSERT(running == *c);
}

void check_agent(const std::string& text) {
    check_file(text, parse_agent);
    if (const auto c = parse_agent(text, "file.toml")) {
        BLKFERRY_ASSERT(!c->server.empty() && c->server.size() <= 16 && !c->source.empty() && c->source.size() <= 64);
        BLKFERRY_ASSERT(c->ring_bytes >= 64U << 10 && c->ring_bytes <= 4ULL << 30);
        BLKFERRY_ASSERT(c->workers >= 1 && c->workers <= 64 && c->resync_queue_depth <= 256);
        BLKFERRY_ASSERT(c->cert.is_absolute() && c->state_dir.is_absolute());
    }
}

/// What is read can be written, and reads as the same number.
template <class Parse, class Format>
void check_number(const std::string& text, Parse parse, Format format) {
    if (const auto n = parse(text))
        BLKFERRY_ASSERT(parse(format(*n)).value() == *n);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 1)
        return 0;
    const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
    switch (data[0] % 7) {
        case 0: check_agent(text); break;
        case 1: check_file(text, parse_server); break;
        case 2: check_agent("server = \"r\"\nsource = \"s\"\n" + text); break;
        case 3: check_number(text, parse_size, format_size); break;
        case 4: check_number(text, parse_rate, format_rate); break;
        case 5: check_number(text, parse_duration_ms, format_duration_ms); break;
        case 6:
            if (const auto e = parse_endpoint(text, default_port)) {
                BLKFERRY_ASSERT(e->port != 0 && !e->host.empty() && e->host.size() <= 253);
                BLKFERRY_ASSERT(parse_endpoint(e->str(), 1).value() == *e);
            }
            break;
        default: break;
    }
    return 0;
}
