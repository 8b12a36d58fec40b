/// A line editor with history and bracketed paste, by libedit (the editline of NetBSD, macOS and Debian).
#include "history_file.hpp"
#include "library.hpp"
#include "line_reader.hpp"
#include "output.hpp"

#if PHI4FLASH_CLI_HAS_EDITOR
#include <histedit.h>

#include <cerrno>
#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <cwchar>
#include <langinfo.h>
#include <unistd.h>
#include <utility>

namespace cli {
namespace {

/// libedit takes widths and characters from the C library: a locale of UTF-8, if need be one that everybody has.
bool have_utf8() {
    const auto is_utf8 = [] { return std::string_view(nl_langinfo(CODESET)) == "UTF-8"; };
    std::setlocale(LC_CTYPE, "");
    if (is_utf8()) return true;
    for (const char* name : {"C.UTF-8", "C.utf8", "en_US.UTF-8"}) {
        if (std::setlocale(LC_CTYPE, name) != nullptr && is_utf8()) return true;
    }
    return false;
}

bool can_move_the_cursor() {
    const char* const kind = std::getenv("TERM");
    return kind != nullptr && *kind != '\0' && std::string_view(kind) != "dumb";
}

constexpr wchar_t interrupt_key = 3;  // Ctrl-C, which the terminal never hands over: it sends a signal
constexpr std::wstring_view paste_end = L"\033[201~";

class line_editor final : public line_reader {
public:
    explicit line_editor(const reader_options& options)
        : prompt_(options.colour.empty() ? "> " : "\1" + options.colour + "\1>\1" + options.plain + "\1 "), file_(options.history_file),
          past_(history_init()), screen_(::fdopen(::dup(1), "w")),
          edit_(screen_ == nullptr ? nullptr : el_init("phi4flash", stdin, screen_, stderr)) {
        if (!ready()) return;
        el_set(edit_, EL_CLIENTDATA, this);
        el_set(edit_, EL_EDITOR, "emacs");
        el_set(edit_, EL_PROMPT_ESC, prompt_of, '\1');
        el_set(edit_, EL_GETCFN, get_character);
        recall();
        add_keys();
        el_source(edit_, nullptr);  // ~/.editrc, as every program with libedit reads it
        // What the editor leaves the terminal in between two messages, and line ends as they were pasted.
        el_set(edit_, EL_SETTY, "-x", "-echo", "-icanon", "-iexten", "+noflsh", "-icrnl", nullptr);
        el_set(edit_, EL_SETTY, "-d", "-icrnl", "-inlcr", nullptr);
        keys_.hush();
    }
    ~line_editor() override {
        if (edit_ != nullptr) el_end(edit_);
        if (past_ != nullptr) history_end(past_);
        if (screen_ != nullptr) std::fclose(screen_);
    }
    line_editor(const line_editor&) = delete;
    line_editor& operator=(const line_editor&) = delete;

    [[nodiscard]] bool ready() const { return edit_ != nullptr && past_ != nullptr; }
    [[nodiscard]] bool edits() const override { return true; }
    keyboard& keys() override { return keys_; }
    std::string warning() override { return std::exchange(warning_, {}); }

    input read(std::string& message) override {
        message.clear();
        interrupt_ = interrupt::none;
        had_text_ = false;
        int size = 0;
        const wchar_t* const line = el_wgets(edit_, &size);
        if (interrupt_ != interrupt::none) {
            standard_output.write("^C\n");
            standard_output.flush();
            return had_text_ ? input::emptied : input::interrupted;
        }
        if (line == nullptr || size <= 0) return input::end;
        for (int i = 0; i < size; ++i) message += p4::encode_utf8(static_cast<char32_t>(line[i])).view();
        if (message.ends_with('\n')) message.pop_back();
        return input::message;
    }

    void remember(std::string_view message) override {
        HistEvent event;
        history(past_, &event, H_ENTER, std::string(message).c_str());
        if (const p4::status ok = file_.append(message); !ok) warning_ = ok.error().message();
    }

private:
    enum class interrupt : std::uint8_t { none, key_given, done };

    void recall() {
        HistEvent event;
        history(past_, &event, H_SETSIZE, static_cast<int>(history_file::most_messages));
        history(past_, &event, H_SETUNIQUE, 1);
        el_set(edit_, EL_HIST, history, past_);
        const auto kept = file_.load();
        if (!kept) warning_ = kept.error().message();
        for (std::size_t i = 0; kept && i < kept->size(); ++i) history(past_, &event, H_ENTER, (*kept)[i].c_str());
    }

    void add_keys() {
        el_set(edit_, EL_ADDFN, "phi4flash-paste", "Insert what the terminal pastes", paste);
        el_set(edit_, EL_ADDFN, "phi4flash-newline", "Begin a new line of the message", begin_line);
        el_set(edit_, EL_ADDFN, "phi4flash-interrupt", "Leave the line", leave_line);
        constexpr const char* bindings[][2] = {
            {"\\e[200~", "phi4flash-paste"}, {"\\e\\r", "phi4flash-newline"},      {"\\e\\n", "phi4flash-newline"},
            {"^C", "phi4flash-interrupt"},   {"^R", "em-inc-search-prev"},         {"\\e[3~", "ed-delete-next-char"},
            {"\\e[H", "ed-move-to-beg"},     {"\\e[1~", "ed-move-to-beg"},         {"\\eOH", "ed-move-to-beg"},
            {"\\e[F", "ed-move-to-end"},     {"\\e[4~", "ed-move-to-end"},         {"\\eOF", "ed-move-to-end"},
            {"\\e[1;5C", "em-next-word"},    {"\\e[1;5D", "ed-prev-word"},
        };
        for (const auto& [key, does] : bindings) el_set(edit_, EL_BIND, key, does, nullptr);
    }

    static line_editor& of(EditLine* edit) {
        void* self = nullptr;
        el_get(edit, EL_CLIENTDATA, &self);
        return *static_cast<line_editor*>(self);
    }
    static char* prompt_of(EditLine* edit) { return of(edit).prompt_.data(); }
    static int get_character(EditLine* edit, wchar_t* character) { return of(edit).next_character(*character); }

    /// 1 for a character, 0 at the end, -1 for Ctrl-C, whose key comes first so that the cursor stands behind the text.
    int next_character(wchar_t& character) {
        if (interrupt_ == interrupt::key_given) {
            interrupt_ = interrupt::done;
            const LineInfoW* const line = el_wline(edit_);
            had_text_ = had_text_ || line->lastchar != line->buffer;
            errno = EINTR;
            return -1;
        }
        for (char byte = 0;;) {
            if (!bytes_.empty()) {
                const p4::utf8_step step = p4::decode_utf8(bytes_.data(), bytes_.data() + bytes_.size());
                if (step.state != p4::utf8_state::truncated) {
                    bytes_.erase(0, step.size);  // the byte that shows a sequence to be none may be an Escape
                    character = static_cast<wchar_t>(step.code_point);  // U+FFFD for what is none
                    return 1;
                }
            }
            switch (keys_.next(byte)) {
                case keyboard::event::byte:
                    bytes_.push_back(byte);
                    continue;
                case keyboard::event::end:
                    bytes_.clear();
                    return 0;
                case keyboard::event::interrupted:
                    bytes_.clear();
                    interrupt_ = interrupt::key_given;
                    character = interrupt_key;
                    return 1;
                case keyboard::event::resized:
                    el_resize(edit_);
                    continue;
                case keyboard::event::continued:
                    el_set(edit_, EL_REFRESH);
                    continue;
            }
        }
    }

    static unsigned char paste(EditLine* edit, int) {
        std::wstring text;
        for (wchar_t c = 0; !text.ends_with(paste_end);) {
            if (el_wgetc(edit, &c) != 1 || of(edit).interrupt_ != interrupt::none) {
                of(edit).had_text_ = !text.empty();
                return CC_NORM;
            }
            if (c != L'\0') text.push_back(c);
        }
        text.resize(text.size() - paste_end.size());
        for (std::size_t at = 0; (at = text.find(L'\r', at)) != std::wstring::npos; ++at) {
            if (at + 1 < text.size() && text[at + 1] == L'\n') text.erase(at, 1);
            text[at] = L'\n';
        }
        if (text.empty()) return CC_NORM;
        return el_winsertstr(edit, text.c_str()) == 0 ? CC_REFRESH : CC_ERROR;
    }
    static unsigned char begin_line(EditLine* edit, int) { return el_winsertstr(edit, L"\n") == 0 ? CC_REFRESH : CC_ERROR; }
    static unsigned char leave_line(EditLine* edit, int) {
        const LineInfoW* const line = el_wline(edit);
        el_cursor(edit, static_cast<int>(line->lastchar - line->cursor));
        return CC_CURSOR;
    }

    keyboard keys_{keyboard::source::editor};  // first: it remembers the terminal, which the editor changes
    std::string prompt_;
    history_file file_;
    History* past_;
    std::FILE* screen_;  // where the editor draws: the terminal behind standard output
    EditLine* edit_;
    interrupt interrupt_ = interrupt::none;
    bool had_text_ = false;  // when it was interrupted
    std::string bytes_;      // of a character that is not whole yet, or that are to be decoded next
    std::string warning_;
};

}  // namespace

std::unique_ptr<line_reader> make_line_editor(const reader_options& options) {
    if (!can_move_the_cursor() || !have_utf8()) return nullptr;
    auto editor = std::make_unique<line_editor>(options);
    if (!editor->ready()) return nullptr;
    return editor;
}

}  // namespace cli

#else

std::unique_ptr<cli::line_reader> cli::make_line_editor(const reader_options&) { return nullptr; }

#endif
