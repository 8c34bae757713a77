// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/bytes.hpp"
#include "base/hash.hpp"
#include "proto/frame.hpp"

/// The receive path of both daemons: bytes in pieces of any size -> frames -> bodies. The first byte chooses the size of the
/// pieces and whether header checksums are made right (so that the fuzzer gets behind the CRC).
using namespace blkferry;
using namespace blkferry::proto;

namespace {

/// Repairs the CRC of each header that the stream would be cut at.
void repair(std::vector<std::byte>& stream) {
    std::size_t at = 0;
    while (stream.size() - at >= frame_header_bytes) {
        std::byte* h = stream.data() + at;
        store_le<std::uint32_t>(h, 0x31524642);
        h[4] = std::byte{1};
        store_le<std::uint32_t>(h + 44, crc32c({h, 44}));
        const std::size_t step = frame_header_bytes + load_le<std::uint32_t>(h + 8);
        if (step > stream.size() - at)
            return;
        at += step;
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 1)
        return 0;
    const auto* p = reinterpret_cast<const std::byte*>(data);
    std::vector<std::byte> stream(p + 1, p + size);
    if ((data[0] & 1U) != 0)
        repair(stream);
    const std::size_t piece = 1 + (std::size_t{data[0]} >> 1) * 7;
    FrameReader reader;
    Decompressor decompressor;
    std::vector<std::byte> scratch;
    std::size_t given = 0;
    for (std::size_t at = 0; at < stream.size();) {
        const std::size_t n = std::min(piece, stream.size() - at);
        reader.feed(std::span(stream).subspan(at, n));
        at += n;
        for (;;) {
            FrameReader::View view;
            const auto status = reader.next(view);
            if (!status)
                return 0;
            if (*status == FrameReader::Status::need_more)
                break;
            BLKFERRY_ASSERT(view.whole.size() == frame_header_bytes + view.wire.size());
            BLKFERRY_ASSERT(view.header.wire_len == view.wire.size());
            BLKFERRY_ASSERT(encode_header(view.header).size() == frame_header_bytes);
            BLKFERRY_ASSERT(std::ranges::equal(encode_header(view.header), view.whole.first(frame_header_bytes)));
            given += view.whole.size();
            if (const auto body = decode_body(view.header, view.wire, decompressor, scratch)) {
                BLKFERRY_ASSERT(body->size() == view.header.raw_len);
                BLKFERRY_ASSERT(xxh3(*body) == view.header.body_xxh3);
            }
            BLKFERRY_ASSERT(scratch.size() <= frame_body_bytes_max);
        }
        BLKFERRY_ASSERT(given + reader.buffered() == at);
    }
    return 0;
}
