"""Every sentence of the studio's page, in English and in Chinese."""

from collections.abc import Mapping
from typing import Any, Literal

from quickstudy.errors import QuickstudyError, unknown

Language = Literal["en", "zh"]
LANGUAGES: Mapping[str, str] = {"en": "English", "zh": "中文"}


def say(language: Language, key: str, **values: Any) -> str:
    """A sentence by its key, with values in it.

    Raises:
        QuickstudyError: there is no such sentence.
    """
    if key not in _WORDS:
        raise unknown("sentence of the studio", key, _WORDS)
    return _WORDS[key][language == "zh"].format(**values)


def name(language: Language, word: str) -> str:
    """The name of a family, a baseline, a shape, or whatever else has one; the word itself where it has none."""
    return _WORDS[f"name_{word}"][language == "zh"] if f"name_{word}" in _WORDS else word.replace("_", " ")


def language_of(text: str) -> Language:
    """Raises QuickstudyError where there is no such language."""
    if text not in LANGUAGES:
        raise QuickstudyError(f"The studio speaks {' and '.join(LANGUAGES)}; got '{text}'.")
    return text  # type: ignore[return-value]


_WORDS: Mapping[str, tuple[str, str]] = {
    # ---- the panel
    "title": ("quickstudy studio", "quickstudy 工作室"),
    "loading": ("Preparing the robot …", "正在准备机器人……"),
    "teach": ("Teach", "教学"),
    "why": ("See why", "为什么"),
    "make": ("Make tasks", "造任务"),
    "keep": ("Files", "文件"),
    "page": ("Page", "页面"),
    "family": ("Robot", "机器人"),
    "learner": ("Learner", "学习器"),
    "beside": ("Compare with", "对比"),
    "new_task": ("New task  (N)", "新任务  (N)"),
    "show": ("Demonstrate  (H)", "我来示范  (H)"),
    "grip": ("Close gripper  (G)", "闭合夹爪  (G)"),
    "open": ("Open gripper  (G)", "张开夹爪  (G)"),
    "finish": ("Done  (F)", "示范完成  (F)"),
    "expert": ("Expert demonstrates  (X)", "专家示范  (X)"),
    "undo": ("Undo  (Z)", "撤销  (Z)"),
    "learn": ("Learn  (L)", "学习  (L)"),
    "try": ("Try  (T)", "尝试  (T)"),
    "stop": ("Stop  (P)", "停止  (P)"),
    "try_20": ("Try 20 times  (M)", "尝试 20 次  (M)"),
    "language": ("Language", "语言"),
    "dark": ("Dark", "深色"),
    "tour": ("Tour of one minute", "一分钟导览"),
    "again": ("Start again", "重新开始"),
    # ---- names
    "name_grasping": ("Arm that grasps", "抓取机械臂"),
    "name_navigation": ("Mobile robot", "移动机器人"),
    "name_ml1-pick-place": ("Arm that carries a puck", "搬运机械臂"),
    "name_ml1-push": ("Arm that pushes a puck", "推动机械臂"),
    "name_ml1-reach": ("Arm that reaches", "到达机械臂"),
    "name_grasping-tries": ("Arm that finds out by trying", "靠尝试学习的机械臂"),
    "name_pick-place": ("carry the puck to a place", "把圆块搬到一处"),
    "name_nothing": ("nothing", "不对比"),
    "name_no-adaptation": ("no adaptation", "不适应"),
    "name_scratch": ("learning from scratch", "从零学习"),
    "name_transfer": ("transfer (pre-trained, then fine-tuned)", "迁移学习（预训练后微调）"),
    "name_box": ("box", "盒子"),
    "name_cylinder": ("cylinder", "圆柱"),
    "name_sphere": ("sphere", "球"),
    "name_capsule": ("capsule", "胶囊"),
    "name_l_shape": ("L shape", "L 形"),
    "name_t_shape": ("T shape", "T 形"),
    "name_ellipsoid": ("ellipsoid", "椭球"),
    "name_mesh": ("irregular", "不规则形"),
    "name_rooms": ("rooms", "房间"),
    "name_maze": ("maze", "迷宫"),
    "name_hall": ("hall", "大厅"),
    "name_person": ("you", "你"),
    "name_expert": ("expert", "专家"),
    "name_file": ("a file", "文件"),
    # ---- what happens
    "is_new": ("A task that it has never seen: **{task}**. Demonstrate it, or let the expert do so.",
               "一个从未见过的任务：**{task}**。请示范一次，或让专家示范。"),
    "is_new_by_trial": ("A task that it has never seen: **{task}**. It takes no demonstration: let it try.",
                        "一个从未见过的任务：**{task}**。它不需要示范：让它尝试。"),
    "showing_grasping": ("Drag the arrows; the hand follows. Lower it over the object, close the gripper, lift by "
                         "15 cm and hold for a second.",
                         "拖动箭头，机械手会跟随。对准物体下降，闭合夹爪，提起 15 厘米并保持一秒。"),
    "showing_navigation": ("Click on the floor or drag the arrows; the robot drives there. Lead it to the green disc.",
                           "点击地面或拖动箭头，机器人就会开过去。把它带到绿色圆盘。"),
    "showing_manipulation": ("Drag the arrows; the hand follows. Lower it over the puck, close the gripper, and carry "
                             "the puck to the green ball.",
                             "拖动箭头，机械手会跟随。降到圆块处，闭合夹爪，把它搬到绿色小球处。"),
    "by_expert": ("The expert demonstrates, disturbed on purpose.", "专家正在示范（带有人为扰动）。"),
    "trying": ("It tries, in a new scene each time.", "它正在尝试，每次场景都不同。"),
    "counting": ("Counting 20 tries …", "正在统计 20 次尝试……"),
    "is_shown": ("Demonstrated. Now let it learn.", "示范完毕。现在让它学习。"),
    "is_learned": ("It learned in {ms:.0f} ms; the robot moved {moving:.0f} ms after the click.",
                   "学习用时 {ms:.0f} 毫秒；点击后 {moving:.0f} 毫秒机器人开始动作。"),
    "is_learned_only": ("It learned in {ms:.0f} ms. Let it try.", "学习用时 {ms:.0f} 毫秒。让它尝试吧。"),
    "is_far": ("The demonstration lies outside of what training showed ({channel}); expect less.",
               "示范超出了训练范围（{channel}），效果可能较差。"),
    "shown_none": ("No demonstration yet.", "还没有示范。"),
    "shown_one": ("{number}. by {by}, {steps} steps: {end}", "{number}. {by}，{steps} 步：{end}"),
    "worked": ("worked", "成功"),
    "failed": ("did not work", "未成功"),
    "score": ("Successes", "成功次数"),
    "interval": ("95 % interval", "95% 区间"),
    "of": ("{successes} of {tries}", "{tries} 次中 {successes} 次"),
    "no_tries": ("No try yet.", "还没有尝试。"),
    "trial_one": ("Trial {number}: {end}", "第 {number} 次：{end}"),
    "failure": ("That did not work: {said}", "出错了：{said}"),
    "too_many": ("{most} pages are open already; close one and load this one again.",
                 "已打开 {most} 个页面；请关闭一个后重新加载。"),
    # ---- what was wrong with a demonstration
    "never_closed": ("The gripper was never closed; close it at the object, then lift.",
                     "夹爪从未闭合；请在物体处闭合夹爪，然后提起。"),
    "closed_beside": ("The gripper closed {aside:.1f} cm beside the right place and {above:.1f} cm above it; it held "
                      "nothing.", "夹爪在正确位置旁 {aside:.1f} 厘米、上方 {above:.1f} 厘米处闭合，什么也没夹住。"),
    "slipped": ("The object slipped out; take it nearer to its middle, and lift more slowly.",
                "物体滑落了；请更靠近中部夹取，并更慢地提起。"),
    "not_lifted": ("It was lifted by {height:.1f} cm; 10 cm are needed.", "只提起了 {height:.1f} 厘米；需要 10 厘米。"),
    "not_held": ("It was not held long enough: hold it up for a second.", "保持时间不够：请提起后保持一秒。"),
    "gripper_twice": ("The gripper moved {times} times; a learner imitates each of them. Close it once.",
                      "夹爪动作了 {times} 次，学习器会一一模仿；请只闭合一次。"),
    "not_there": ("The robot stopped {metres:.1f} m from the goal; lead it onto the disc.",
                  "机器人停在距目标 {metres:.1f} 米处；请把它带到圆盘上。"),
    "walls": ("It touched a wall {times} times.", "它碰墙 {times} 次。"),
    "detour": ("The way was {factor:.1f} times as long as the shortest; a learner takes the same detour.",
               "路程是最短路的 {factor:.1f} 倍，学习器会走同样的弯路。"),
    "not_done": ("The task was not done when the demonstration ended.", "示范结束时任务尚未完成。"),
    # ---- see why
    "attention": ("Colour demonstrated steps by attention", "按注意力为示范步骤着色"),
    "attention_said": ("Points are the demonstrated steps, redder the more the learner attends to them now.",
                       "点是示范的步骤，学习器此刻越关注，颜色越红。"),
    "no_attention": ("This learner does not attend to single demonstrated steps.", "该学习器不关注单个示范步骤。"),
    "moved": ("Its parameters moved by {percent:.1f} % of their length from the initial ones.",
              "参数从初始值移动了其长度的 {percent:.1f}%。"),
    "not_moved": ("No parameter moved: this learner keeps what it was shown in a memory.",
                  "没有参数移动：该学习器把示范存入记忆。"),
    "memory": ("Memory: {written} of {slots} slots were written; it reads mostly slot {slot}, with {percent:.0f} %.",
               "记忆：{slots} 个槽位中写入了 {written} 个；现在主要读取槽位 {slot}（{percent:.0f}%）。"),
    "nothing_learned": ("It has learned nothing yet.", "它还什么都没学。"),
    "similar": ("Find the most similar known tasks", "查找最相似的已知任务"),
    "similar_busy": ("Comparing with {count} known tasks …", "正在与 {count} 个已知任务比较……"),
    "similar_none": ("Show a demonstration first.", "请先示范。"),
    "similar_said": ("Nearest known tasks, by how alike their demonstrations are:",
                     "最相似的已知任务（按示范的相似度）："),
    "curve": ("Successes by demonstrations", "示范次数与成功率"),
    "curve_none": ("“Try 20 times” after each demonstration draws the curve.",
                   "每次示范后点击“尝试 20 次”即可画出曲线。"),
    "curve_x": ("demonstrations", "示范次数"),
    "curve_y": ("success, %", "成功率，%"),
    # ---- make tasks
    "shape": ("Shape", "形状"),
    "width": ("Width, cm", "宽，厘米"),
    "height": ("Height, cm", "高，厘米"),
    "length": ("Length, cm", "长，厘米"),
    "mass": ("Mass, kg", "质量，千克"),
    "friction": ("Friction", "摩擦"),
    "style": ("Building", "建筑"),
    "seed": ("Number", "编号"),
    "goal_x": ("Goal, left to right", "目标左右"),
    "make_it": ("Make this task", "生成此任务"),
    "draw": ("Draw a room", "画房间"),
    "draw_said": ("Click on the floor to set or to remove a block; then take it as a task.",
                  "点击地面放置或移除方块，然后用作任务。"),
    "draw_take": ("Take this room", "使用这个房间"),
    "draw_clear": ("Empty it", "清空"),
    "import_mesh": ("Import a mesh (.stl, .obj)", "导入网格（.stl、.obj）"),
    "import_map": ("Import a map (.png, .pgm, .map)", "导入地图（.png、.pgm、.map）"),
    "unit": ("Unit of the mesh", "网格单位"),
    "resolution": ("Metres a cell of the map", "地图每格米数"),
    "importing": ("Looking for a grasp of {name} …", "正在为 {name} 寻找抓取方式……"),
    "imported": ("{name} is the task now.", "任务已换成 {name}。"),
    "no_making": ("Tasks of this robot cannot be made here.", "该机器人的任务不能在此制作。"),
    # ---- files
    "folder": ("Everything is kept in `{folder}`.", "全部保存在 `{folder}`。"),
    "name": ("Name", "名称"),
    "save_demonstration": ("Save demonstrations (LeRobot)", "保存示范（LeRobot）"),
    "save_skill": ("Save skill", "保存技能"),
    "save_bundle": ("Save bundle for a robot", "保存机器人部署包"),
    "saved": ("Saved `{path}`. On the command line: `{command}`", "已保存 `{path}`。命令行：`{command}`"),
    "kept": ("Kept", "已保存的"),
    "load": ("Load", "载入"),
    "loaded": ("Loaded {name}.", "已载入 {name}。"),
    "nothing_kept": ("nothing yet", "暂无"),
    "upload": ("Upload a demonstration (.npz) or a skill (.safetensors)", "上传示范（.npz）或技能（.safetensors）"),
    "too_large": ("{name} has {megabytes:.1f} MB; at most {most:.0f} MB are taken.",
                  "{name} 有 {megabytes:.1f} MB；最多 {most:.0f} MB。"),
    # ---- the tour
    "next": ("Next", "下一步"),
    "end": ("End", "结束"),
    "tour_1": ("**1 of 6.** The robot has met hundreds of tasks, but not the one in front of it. "
               "Turn the scene with the mouse.", "**1/6** 机器人见过数百个任务，但没见过眼前这个。用鼠标旋转场景。"),
    "tour_2": ("**2 of 6.** “Try” (T) shows what it can do without being shown anything: little. “Stop” (P) ends that.",
               "**2/6** “尝试”(T) 看看它在没有示范时能做什么：很少。“停止”(P) 结束。"),
    "tour_3": ("**3 of 6.** “Demonstrate” (H) gives you the handle. Or let the expert (X) show it.",
               "**3/6** “我来示范”(H) 给你手柄；或让专家 (X) 示范。"),
    "tour_4": ("**4 of 6.** “Learn” (L): it adapts in some milliseconds and tries in new scenes at once.",
               "**4/6** “学习”(L)：几毫秒内适应，并立刻在新场景中尝试。"),
    "tour_5": ("**5 of 6.** “Compare with” puts a second robot into the scene; “Try 20 times” (M) counts, and the "
               "interval says how sure that is.",
               "**5/6** “对比”会放入第二个机器人；“尝试 20 次”(M) 计数，区间说明有多可靠。"),
    "tour_6": ("**6 of 6.** “See why”, “Make tasks” and “Files” are the other tabs. Now it is your turn: new task (N).",
               "**6/6** “为什么”“造任务”“文件”是其他标签页。轮到你了：新任务 (N)。"),
}  # fmt: skip
