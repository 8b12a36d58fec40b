function love.conf(t)
    t.identity = "phi4flash"
    t.window.title = "phi4flash"
    t.window.width, t.window.height = 640, 360
    t.modules.audio, t.modules.sound, t.modules.joystick, t.modules.physics = false, false, false, false
end
