// SPDX-License-Identifier: Apache-2.0
// Completions for bash, zsh and fish, written from the parser's own tree of commands, so that they cannot differ from it.
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tools/cli.hpp"
#include "tools/commands.hpp"
#include "tools/output.hpp"

namespace blkferry::tools {

namespace {

/// A command with the words that lead to it: "pki/issue"; empty for the program itself.
struct Place {
    std::string path;
    const CommandWord* command;
};

void collect(const CommandWord& command, const std::string& path, std::vector<Place>& out) {
    out.push_back({path, &command});
    for (const CommandWord& c : command.commands)
        collect(c, path.empty() ? c.name : path + "/" + c.name, out);
}

std::vector<Place> places(const CommandWord& tree) {
    std::vector<Place> out;
    collect(tree, "", out);
    return out;
}

bool is_file(std::string_view value) {
    return value == "PATH" || value == "FILE" || value == "DIR" || value == "DEVICE";
}

/// The possible values of a positional argument that has few.
std::vector<std::string> choices(std::string_view argument) {
    if (argument == "ROLE")
        return {"source", "server"};
    if (argument == "PART")
        return {"agent", "server"};
    if (argument == "SHELL")
        return {"bash", "zsh", "fish"};
    return {};
}

bool takes_files(const CommandWord& command) {
    return std::ranges::any_of(command.arguments, is_file);
}

/// What may follow at a place, with its help, which may be empty.
std::vector<std::pair<std::string, std::string>> words_at(const CommandWord& command) {
    std::vector<std::pair<std::string, std::string>> out;
    for (const CommandWord& c : command.commands)
        out.emplace_back(c.name, c.help);
    for (const std::string& argument : command.arguments)
        for (std::string& choice : choices(argument))
            out.emplace_back(std::move(choice), "");
    for (const OptionWord& option : command.options)
        out.emplace_back(option.name, option.help);
    return out;
}

/// Options that are followed by a value, those with a file or the others, each with its place: one name may be a flag
/// elsewhere.
std::string options_with_value(const std::vector<Place>& all, bool file) {
    std::vector<std::string> names;
    for (const Place& place : all)
        for (const OptionWord& option : place.command->options)
            if (!option.value.empty() && is_file(option.value) == file)
                names.push_back(fmt::format("/{}:{}", place.path, option.name));
    return fmt::format("{}", fmt::join(names, "|"));
}

std::string paths(const std::vector<Place>& all) {
    std::vector<std::string> out;
    for (const Place& place : all)
        if (!place.path.empty())
            out.push_back("/" + place.path);
    return fmt::format("{}", fmt::join(out, "|"));
}

/// For text between single quotes.
std::string quoted(std::string_view text, std::string_view apostrophe) {
    std::string out = "'";
    for (const char c : text)
        c == '\'' ? out += apostrophe : out += c;
    return out + "'";
}

std::string for_bash(const std::vector<Place>& all) {
    std::string out = fmt::format(R"(# bash completion of blkferry; `blkferry completion bash` prints it
_blkferry() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} path= words= files= i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case $path/${{COMP_WORDS[i]}} in
            {}) path=$path/${{COMP_WORDS[i]}} ;;
        esac
    done
    COMPREPLY=()
    case $path:$prev in
        {}) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
        {}) return ;;
    esac
    case $path in
)", paths(all), options_with_value(all, true), options_with_value(all, false));
    for (const Place& place : all) {
        std::string words;
        for (const auto& [word, help] : words_at(*place.command))
            words += (words.empty() ? "" : " ") + word;
        out += fmt::format("        '{}') words='{}' files={} ;;\n", place.path.empty() ? "" : "/" + place.path, words,
                           takes_files(*place.command) ? "yes" : "");
    }
    return out + R"(    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
    if [[ -n $files && $cur != -* ]]; then
        compopt -o filenames 2>/dev/null || true
        mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- "$cur")
    fi
}
complete -F _blkferry blkferry
)";
}

std::string for_zsh(const std::vector<Place>& all) {
    std::string out = fmt::format(R"(#compdef blkferry
# zsh completion of blkferry; `blkferry completion zsh` prints it
_blkferry() {{
    local place= i
    local -a items
    for ((i = 2; i < CURRENT; i++)); do
        case $place/${{words[i]}} in
            ({}) place=$place/${{words[i]}} ;;
        esac
    done
    case $place:${{words[CURRENT-1]}} in
        ({}) _files; return ;;
        ({}) return ;;
    esac
    case $place in
)", paths(all), options_with_value(all, true), options_with_value(all, false));
    for (const Place& place : all) {
        std::string items;
        for (const auto& [word, help] : words_at(*place.command))
            items += " " + quoted(help.empty() ? word : word + ":" + help, "'\\''");
        out += fmt::format("        ({}) items=({}){} ;;\n", quoted(place.path.empty() ? "" : "/" + place.path, ""), items.substr(items.empty() ? 0 : 1),
                           takes_files(*place.command) ? "; [[ ${words[CURRENT]} == -* ]] || _files" : "");
    }
    return out + "    esac\n    _describe blkferry items\n}\n_blkferry \"$@\"\n";
}

std::string for_fish(const std::vector<Place>& all) {
    std::string out = fmt::format(R"(# fish completion of blkferry; `blkferry completion fish` prints it
function __blkferry_at
    set -l place ''
    for word in (commandline -opc)[2..-1]
        if string match -qr '^({})$' -- "$place/$word"
            set place "$place/$word"
        end
    end
    test "$place" = "$argv[1]"
end
complete -c blkferry -f
)", paths(all));
    for (const Place& place : all) {
        const std::string at = fmt::format("complete -c blkferry -n \"__blkferry_at '{}'\"", place.path.empty() ? "" : "/" + place.path);
        for (const CommandWord& c : place.command->commands)
            out += fmt::format("{} -a {} -d {}\n", at, c.name, quoted(c.help, "\\'"));
        for (const std::string& argument : place.command->arguments)
            if (const auto possible = choices(argument); !possible.empty())
                out += fmt::format("{} -a '{}'\n", at, fmt::join(possible, " "));
        if (takes_files(*place.command))
            out += at + " -F\n";
        for (const OptionWord& option : place.command->options)
            out += fmt::format("{} -l {}{} -d {}\n", at, option.name.substr(2),
                               option.value.empty() ? "" : is_file(option.value) ? " -rF" : " -x", quoted(option.help, "\\'"));
    }
    return out;
}

}  // namespace

Exit run(const Global& global, const CompletionOptions& options) {
    const CommandWord tree = command_tree();
    const std::vector<Place> all = places(tree);
    const std::string script = options.shell == "bash" ? for_bash(all) : options.shell == "zsh" ? for_zsh(all) : for_fish(all);
    if (global.json)
        print_json(nlohmann::json{{"ok", true}, {"shell", options.shell}, {"script", script}});
    else
        print_text(script);
    return Exit::ok;
}

}  // namespace blkferry::tools
