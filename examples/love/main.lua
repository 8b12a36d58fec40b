-- A character that thinks for 4 ms a frame, and one piece of work more at most. Type a question and press return; escape interrupts.
--   PHI4FLASH_C_LIBRARY, PHI4FLASH_HEADER, PHI4FLASH_MODEL     files: the library, phi4flash.h, the model
--   PHI4FLASH_CHECK=1       ask one question, interrupt another one, take a screenshot (answer.png in LÖVE's save folder), print, quit
local utf8 = require("utf8")

local budget = 4 -- milliseconds of thinking in a frame
local model, thought, question, said, typed = nil, nil, "", "", ""
local frames, longest, angle = 0, 0, 0
local checking = os.getenv("PHI4FLASH_CHECK")

local function ask(text)
    question, said, thought = text, "", model:ask(text)
end

function love.load()
    local header = assert(io.open(os.getenv("PHI4FLASH_HEADER"))):read("*a")
    local open, library = require("phi4flash").open, os.getenv("PHI4FLASH_C_LIBRARY")
    assert(not checking or not pcall(open, library, header, "no model")) -- a failure, and then another try
    model = open(library, header, os.getenv("PHI4FLASH_MODEL"))
    ask("What is 347 + 285?")
    love.graphics.setFont(love.graphics.newFont(16))
end

local function think()
    local begin = love.timer.getTime()
    local text, done = thought:think(budget)
    longest = math.max(longest, love.timer.getTime() - begin)
    said = said .. text
    if done then thought = nil end
end

-- What a test wants to know: the answer, a question in the middle of another one, an interrupt of that, the answer again, and a picture of it.
local check_answers = coroutine.wrap(function()
    for turn = 1, 2 do
        local asked = thought
        while thought do coroutine.yield() end
        assert(select(2, asked:think(budget)), "ended, and stays so")
        print("answer: " .. said)
        if not said:find("boxed{632}", 1, true) then return love.event.quit(1) end
        if turn == 1 then
            ask("What is 508 + 77?")
            while #said < 3 do coroutine.yield() end
            thought:think(0) -- in the middle of a pass another question takes its place
            ask("What is 999 + 1?")
            while #said < 3 do coroutine.yield() end
            thought:interrupt()
            while thought do coroutine.yield() end
            print("interrupted: " .. said)
            if said:find("boxed{1000}", 1, true) then return love.event.quit(1) end
            ask("What is 347 + 285?")
        end
    end
    for _ = 1, 3 do coroutine.yield() end
    love.graphics.captureScreenshot(function(image)
        image:encode("png", "answer.png")
        print(string.format("screenshot: %s/answer.png", love.filesystem.getSaveDirectory()))
        print(string.format("%d frames, longest thought %.1f ms", frames, longest * 1000))
        love.event.quit(0)
    end)
    while true do coroutine.yield() end
end)

function love.update(seconds)
    frames, angle = frames + 1, angle + seconds
    if thought then think() end
    if checking then check_answers() end
end

function love.draw()
    love.graphics.clear(0.10, 0.12, 0.16)
    love.graphics.setColor(0.95, 0.75, 0.35)
    love.graphics.circle("fill", 90, 250, 42)
    love.graphics.setColor(0.10, 0.12, 0.16)
    love.graphics.circle("fill", 76, 240, 6)
    love.graphics.circle("fill", 104, 240, 6)
    if thought then love.graphics.arc("line", "open", 90, 250, 56, angle * 4, angle * 4 + 2) end
    love.graphics.setColor(0.93, 0.93, 0.95)
    love.graphics.rectangle("fill", 160, 60, 450, 230, 12)
    love.graphics.polygon("fill", 140, 245, 165, 225, 165, 255)
    love.graphics.setColor(0.10, 0.12, 0.16)
    love.graphics.printf(said, 176, 76, 420)
    love.graphics.setColor(0.6, 0.7, 0.9)
    love.graphics.print(typed ~= "" and "> " .. typed or question, 160, 24)
    love.graphics.print(string.format("%d frames, longest thought %.1f ms", frames, longest * 1000), 160, 316)
end

function love.textinput(text) typed = typed .. text end

function love.keypressed(key)
    if key == "backspace" then typed = typed:sub(1, (utf8.offset(typed, -1) or 1) - 1) end
    if key == "escape" and thought then thought:interrupt() end
    if key == "return" and typed ~= "" then
        ask(typed)
        typed = ""
    end
end
