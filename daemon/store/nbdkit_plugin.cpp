// SPDX-License-Identifier: Apache-2.0
// nbdkit plugin: one disk of a recovery point, read-only, while the server runs.
//
//     nbdkit ./blkferry-nbdkit-plugin.so store=/var/lib/blkferry source=web1 point=daily-1 disk=0 [key=manifest.pub.pem]
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>
#include <string>

#include <fmt/format.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "proto/batch.hpp"
#include "store/export.hpp"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

namespace {

using blkferry::Errc;
using blkferry::Error;
using blkferry::store::PointReader;
using blkferry::store::Signer;

struct Parameters {
    std::string store;
    std::string source;
    std::string point;
    std::string key;
    unsigned disk = 0;
};

// nbdkit's interface is one plugin per process, configured before the first connection: this is its only state.
Parameters& parameters() {
    static Parameters p;
    return p;
}

std::unique_ptr<PointReader>& image() {
    static std::unique_ptr<PointReader> reader;
    return reader;
}

int report(const Error& error) {
    nbdkit_error("%s", error.text.c_str());
    nbdkit_set_error(error.sys_errno != 0 ? error.sys_errno : EIO);
    return -1;
}

int on_config(const char* key, const char* value) {
    const std::string_view k = key;
    Parameters& p = parameters();
    if (k == "store") {
        char* path = nbdkit_realpath(value);
        if (path == nullptr)
            return -1;
        p.store = path;
        free(path);
    } else if (k == "key") {
        char* path = nbdkit_absolute_path(value);
        if (path == nullptr)
            return -1;
        p.key = path;
        free(path);
    } else if (k == "source") {
        p.source = value;
    } else if (k == "point") {
        p.point = value;
    } else if (k == "disk") {
        const auto [end, err] = std::from_chars(value, value + std::strlen(value), p.disk);
        if (err != std::errc{} || *end != '\0' || p.disk >= blkferry::proto::disks_max) {
            nbdkit_error("disk=%s refused: the disk's slot, 0 to %zu", value, blkferry::proto::disks_max - 1);
            return -1;
        }
    } else {
        nbdkit_error("unknown parameter %s: store, source, point, disk and key are known", key);
        return -1;
    }
    return 0;
}

int on_config_complete() {
    const Parameters& p = parameters();
    if (p.store.empty() || p.source.empty() || p.point.empty()) {
        nbdkit_error("store=, source= and point= are needed");
        return -1;
    }
    if (!blkferry::proto::valid_name(p.source)) {
        nbdkit_error("source=%s is no name for a source", p.source.c_str());
        return -1;
    }
    return 0;
}

int on_get_ready() {
    const Parameters& p = parameters();
    std::unique_ptr<Signer> verifier;
    if (!p.key.empty()) {
        auto loaded = Signer::load_public(p.key);
        if (!loaded)
            return report(loaded.error());
        verifier = std::move(*loaded);
    }
    const auto dir = std::filesystem::path(p.store) / "sources" / p.source;
    auto reader = PointReader::open(dir, p.point, static_cast<std::uint16_t>(p.disk), verifier.get());
    if (!reader)
        return report(reader.error());
    image() = std::move(*reader);
    return 0;
}

void on_unload() {
    image().reset();
}

void* on_open(int) {
    return NBDKIT_HANDLE_NOT_NEEDED;
}

int64_t on_get_size(void*) {
    return static_cast<int64_t>(image()->bytes());
}

int on_pread(void*, void* buffer, uint32_t count, uint64_t offset, uint32_t) {
    auto r = image()->read(offset, std::span(static_cast<std::byte*>(buffer), count));
    return r ? 0 : report(r.error());
}

int on_yes(void*) {
    return 1;
}

int on_no(void*) {
    return 0;
}

int on_extents(void*, uint32_t count, uint64_t offset, uint32_t, struct nbdkit_extents* extents) {
    const uint64_t end = offset + count;
    while (offset < end) {
        auto range = image()->range(offset);
        if (!range)
            return report(range.error());
        const uint32_t type = range->zero ? NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO : 0;
        if (nbdkit_add_extent(extents, offset, range->bytes, type) != 0)
            return -1;
        offset += range->bytes;
    }
    return 0;
}

constexpr const char* config_help =
    "store=<FOLDER>  (required) the server's store\n"
    "source=<NAME>   (required) the source\n"
    "point=<NAME>    (required) the recovery point\n"
    "disk=<SLOT>     the disk's slot, default 0\n"
    "key=<PEM>       verify the manifest's signatures with this public key";

struct nbdkit_plugin make_plugin() {
    struct nbdkit_plugin p {};
    p.name = "blkferry";
    p.longname = "blkferry recovery points";
    p.version = BLKFERRY_VERSION;
    p.description = "one disk of a blkferry recovery point, read-only";
    p.config = on_config;
    p.config_complete = on_config_complete;
    p.config_help = config_help;
    p.get_ready = on_get_ready;
    p.unload = on_unload;
    p.open = on_open;
    p.get_size = on_get_size;
    p.pread = on_pread;
    p.can_write = on_no;
    p.can_multi_conn = on_yes;
    p.can_extents = on_yes;
    p.extents = on_extents;
    return p;
}

struct nbdkit_plugin plugin = make_plugin();

}  // namespace

NBDKIT_REGISTER_PLUGIN(plugin)
