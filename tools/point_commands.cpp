// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tls/identity.hpp"
#include "tools/ask.hpp"
#include "tools/commands.hpp"
#include "tools/human.hpp"
#include "tools/offline.hpp"
#include "tools/output.hpp"
#include "tools/progress.hpp"
#include "tools/views.hpp"

namespace blkferry::tools {

namespace {

struct PointName {
    std::string source;
    std::string point;
};

PointName split(const std::string& text) {
    const std::size_t slash = text.find('/');
    return slash == std::string::npos ? PointName{{}, text} : PointName{text.substr(0, slash), text.substr(slash + 1)};
}

Failure failure(Errc code, std::string text, Exit exit = Exit::failed) { return {Error{code, 0, std::move(text)}, exit}; }

// A point without its source's name: the one source that has such a point, else the user must say which.
Answer<PointName> find_point(const Global& global, const std::string& argument) {
    PointName name = split(argument);
    if (name.point.empty() || (argument.find('/') != std::string::npos && name.source.empty()))
        return std::unexpected(failure(Errc::invalid, fmt::format("'{}': POINT or SOURCE/POINT expected", argument), Exit::usage));
    if (!name.source.empty())
        return name;
    const auto answer = ask(global.server_socket, Json{{"cmd", "points"}});
    if (!answer)
        return std::unexpected(answer.error());
    std::string others;
    for (const Json& point : part(*answer, "points")) {
        if (text(point, "point") != name.point)
            continue;
        if (!name.source.empty())
            others += fmt::format(" {}/{}", text(point, "source"), name.point);
        else
            name.source = text(point, "source");
    }
    if (name.source.empty())
        return std::unexpected(failure(Errc::not_found, fmt::format("{}: the server has no such recovery point (blkferry points)", argument)));
    if (!others.empty())
        return std::unexpected(failure(Errc::conflict, fmt::format("{}: several sources have it: {}/{}{}", argument, name.source, name.point, others)));
    return name;
}

std::string range_lines(const Json& answer) {
    std::string out;
    for (const Json& range : part(answer, "ranges")) {
        const std::string where = has_number(range, "slot") ? fmt::format("slot {}", number(range, "slot")) : printable(text(range, "device"));
        out += fmt::format("differs: {}, offset {}, {} bytes\n", where, number(range, "offset"), number(range, "bytes"));
    }
    return out;
}

Exit print_verdict(const Global& global, const Answer<Json>& answer, const std::string& what) {
    if (!answer)
        return report(global, answer.error().error, answer.error().exit);
    // "equal" must be said in so many words; nothing else counts as proof.
    const bool equal = flag(*answer, "equal") && number(*answer, "differing_bytes") == 0;
    if (global.json) {
        print_json(*answer);
    } else {
        print_text(range_lines(*answer));
        if (const std::string manifest = text(*answer, "manifest"); !manifest.empty())
            print_text(fmt::format("manifest: {}\n", printable(manifest)));
        for (const Json& digest : part(*answer, "digests"))
            print_text(fmt::format("slot {}: sha256 {}\n", number(digest, "slot"), printable(text(digest, "sha256"))));
        print_text(fmt::format("{}: {}, {} compared, {} differ\n", what, equal ? "equal" : "DIFFERS",
                               human_bytes(number(*answer, "compared_bytes")), human_bytes(number(*answer, "differing_bytes"))));
    }
    return equal ? Exit::ok : Exit::differs;
}

Exit print_export(const Global& global, const Json& answer) {
    if (global.json)
        print_json(answer);
    else
        print_text(fmt::format("{}: {}, sha256 {}\n", printable(text(answer, "file")), human_bytes(number(answer, "bytes")),
                               printable(text(answer, "sha256"))));
    return Exit::ok;
}

Exit export_from_store(const Global& global, const ExportOptions& options, const std::filesystem::path& file) {
    const PointName name = split(options.point);
    if (name.source.empty() || name.point.empty())
        return report(global, Error{Errc::invalid, 0, fmt::format("'{}': SOURCE/POINT expected with --store", options.point)}, Exit::usage);
    ProgressLine line("export", stderr_is_terminal(), global.json);
    const auto result = export_offline(options.store, name.source, name.point, options.slot, file,
                                       [&](std::uint64_t done, std::uint64_t total) { line.update(monotonic_ms(), done, total); });
    line.finish();
    if (!result)
        return report(global, result.error());
    return print_export(global, Json{{"ok", true}, {"end", true}, {"file", file.string()}, {"bytes", result->bytes}, {"sha256", result->sha256}});
}

}  // namespace

Exit run(const Global& global, const MarkOptions& options) {
    if (!options.name.empty()) {
        if (const auto checked = tls::check_name(options.name); !checked)
            return report(global, checked.error(), Exit::usage);
    }
    const auto answer = ask_with_progress(global, global.agent_socket,
                                          Json{{"cmd", "mark"}, {"fs", options.fs}, {"name", options.name}}, "mark");
    if (!answer)
        return report(global, answer.error().error, answer.error().exit);
    if (global.json)
        print_json(*answer);
    else
        print_text(fmt::format("recovery point {} at mark {} ({}, {})\n", printable(text(*answer, "point")), number(*answer, "mark"),
                               flag(*answer, "fs") ? "file systems frozen for the cut" : "crash-consistent",
                               human_ms(number(*answer, "took_ms"))));
    return Exit::ok;
}

Exit run(const Global& global, const PointsOptions& options) {
    Json request = {{"cmd", "points"}};
    if (!options.source.empty())
        request["source"] = options.source;
    const auto answer = ask(global.server_socket, request);
    if (!answer)
        return report(global, answer.error().error, answer.error().exit);
    if (global.json)
        print_json(*answer);
    else
        print_text(points_text(*answer));
    return Exit::ok;
}

Exit run(const Global& global, const DeleteOptions& options) {
    const auto name = find_point(global, options.point);
    if (!name)
        return report(global, name.error().error, name.error().exit);
    const auto answer = ask(global.server_socket, Json{{"cmd", "point_delete"}, {"source", name->source}, {"point", name->point}});
    if (!answer)
        return report(global, answer.error().error, answer.error().exit);
    if (global.json)
        print_json(*answer);
    else
        print_text(fmt::format("{}/{}: deleted\n", printable(name->source), printable(name->point)));
    return Exit::ok;
}

Exit run(const Global& global, const VerifyOptions& options) {
    if (options.source)
        return print_verdict(global, ask_with_progress(global, global.agent_socket, Json{{"cmd", "verify_source"}}, "verify"),
                             "source and replica");
    const auto name = find_point(global, options.point);
    if (!name)
        return report(global, name.error().error, name.error().exit);
    const Json request = {{"cmd", "verify_point"}, {"source", name->source}, {"point", name->point}};
    return print_verdict(global, ask_with_progress(global, global.server_socket, request, "verify"),
                         printable(name->source + "/" + name->point));
}

Exit run(const Global& global, const ExportOptions& options) {
    std::error_code err;
    const std::filesystem::path file = std::filesystem::absolute(options.file, err);
    if (err || options.file.empty())
        return report(global, Error{Errc::invalid, 0, fmt::format("'{}': no usable path", options.file.string())}, Exit::usage);
    if (!options.store.empty())
        return export_from_store(global, options, file);
    const auto name = find_point(global, options.point);
    if (!name)
        return report(global, name.error().error, name.error().exit);
    Json request = {{"cmd", "export"}, {"source", name->source}, {"point", name->point}, {"file", file.string()}};
    if (options.slot)
        request["slot"] = *options.slot;
    const auto answer = ask_with_progress(global, global.server_socket, request, "export");
    if (!answer)
        return report(global, answer.error().error, answer.error().exit);
    return print_export(global, *answer);
}

}  // namespace blkferry::tools
