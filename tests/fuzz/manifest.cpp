// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <string>

#include <fmt/format.h>

#include "base/hash.hpp"
#include "store/checkpoint.hpp"
#include "store/manifest.hpp"

/// Manifests and checkpoints from a hostile file: what is accepted must come back the same when written again.
using namespace blkferry;
using namespace blkferry::store;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string text(reinterpret_cast<const char*>(data), size);
    (void)parse_chunk_name(text);
    (void)parse_segment_name(text);
    if (auto m = decode_manifest(text, nullptr)) {
        auto again = encode(m->manifest, nullptr);
        BLKFERRY_ASSERT(again && decode_manifest(*again, nullptr).value().manifest == m->manifest);
    }
    (void)decode_checkpoint(text);
    const std::string whole = text + fmt::format("\ncrc32c={:08x}\n", crc32c(std::as_bytes(std::span(text))));
    if (auto c = decode_checkpoint(whole))
        BLKFERRY_ASSERT(decode_checkpoint(encode(*c)).value() == *c);
    return 0;
}
