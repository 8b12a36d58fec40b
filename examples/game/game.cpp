/// Two characters and a window, with raylib. 1 and 2 ask, space interrupts, F5 saves, F9 loads.
/// usage: game MODEL SAVE_FILE [--picture]     --picture: until both have answered, then a screenshot, game.png in the current folder
#include "minds.hpp"

#include <raylib.h>

namespace {

void draw_text_in(const std::string& text, Rectangle box) {
    std::string line;
    float y = box.y + 10;
    const auto flush = [&] {
        DrawText(line.c_str(), static_cast<int>(box.x) + 12, static_cast<int>(y), 18, Color{30, 34, 44, 255});
        line.clear();
        y += 22;
    };
    for (const char c : text) {
        if (c == '\n') {
            flush();
            continue;
        }
        line += c;
        if (MeasureText(line.c_str(), 18) > static_cast<int>(box.width) - 30) flush();
        if (y > box.y + box.height - 22) return;
    }
    flush();
}

void draw(const game::character& c, float x, Color color, double time) {
    const Rectangle bubble{x - 160, 70, 320, 200};
    DrawRectangleRounded(bubble, 0.1f, 8, Color{236, 236, 242, 255});
    draw_text_in(c.said + (c.interrupted ? " ..." : ""), bubble);
    DrawCircle(static_cast<int>(x), 340, 44, color);
    DrawCircle(static_cast<int>(x) - 14, 330, 6, Color{30, 34, 44, 255});
    DrawCircle(static_cast<int>(x) + 14, 330, 6, Color{30, 34, 44, 255});
    if (c.request != 0) {
        const float from = static_cast<float>(time * 200.0);
        DrawRing({x, 340}, 52, 57, from, from + 120, 24, color);
    }
    DrawText(c.name.c_str(), static_cast<int>(x) - MeasureText(c.name.c_str(), 20) / 2, 396, 20, RAYWHITE);
    DrawText(c.question.c_str(), static_cast<int>(x) - MeasureText(c.question.c_str(), 20) / 2, 38, 20, Color{150, 180, 230, 255});
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) return 2;
    const bool picture = argc > 3 && std::string_view(argv[3]) == "--picture";
    const char* const questions[] = {"What is 347 + 285?", "What is 12 + 30?", "What is 999 + 1?", "What is 508 + 77?"};
    SetTraceLogLevel(LOG_WARNING);
    InitWindow(800, 450, "phi4flash");
    SetTargetFPS(60);
    std::size_t asked = 0;
    double worst = 0.0;
    int frames = 0;
    int silent = 0;
    std::string note;
    try {
        game::minds minds(argv[1], {"Ada", "Bob"}, PHI4FLASH_ALL_CORES);
        minds.ask(0, questions[asked++ % 4]);
        minds.ask(1, questions[asked++ % 4]);
        while (!WindowShouldClose()) {
            if (IsKeyPressed(KEY_ONE)) minds.ask(0, questions[asked++ % 4]);
            if (IsKeyPressed(KEY_TWO)) minds.ask(1, questions[asked++ % 4]);
            if (IsKeyPressed(KEY_SPACE)) minds.interrupt(0), minds.interrupt(1);
            try {
                if (IsKeyPressed(KEY_F5)) minds.save(argv[2]), note.clear();
                if (IsKeyPressed(KEY_F9)) minds.load(argv[2]), note.clear();
            } catch (const std::exception& e) {  // no saved game, or a damaged one: the game goes on
                note = e.what();
            }
            const double before = GetTime();
            minds.think(4000);
            worst = std::max(worst, (GetTime() - before) * 1e3);
            BeginDrawing();
            ClearBackground(Color{26, 30, 40, 255});
            draw(minds.cast()[0], 220, Color{240, 190, 90, 255}, GetTime());
            draw(minds.cast()[1], 580, Color{130, 200, 150, 255}, GetTime());
            DrawText(TextFormat("%d frames, longest thought %.1f ms      1, 2: ask   space: interrupt   F5: save   F9: load", ++frames, worst), 20,
                     424, 14, Color{150, 180, 230, 255});
            DrawText(note.c_str(), 20, 10, 14, Color{230, 120, 110, 255});
            EndDrawing();
            if (!picture || minds.talking(0) || minds.talking(1)) continue;
            if (++silent == 3) TakeScreenshot("game.png");
            if (silent > 3) break;
        }
        if (picture) {
            std::printf("%d frames, longest thought %.1f ms\n", frames, worst);
            for (const game::character& c : minds.cast()) std::printf("%s %s\n%s\n", c.name.c_str(), c.question.c_str(), c.said.c_str());
        }
    } catch (const std::exception& e) {
        std::fprintf(stderr, "failed: %s\n", e.what());
        CloseWindow();
        return 1;
    }
    CloseWindow();
    return 0;
}
