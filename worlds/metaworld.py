"""Meta-World: 50 tasks of a simulated Sawyer arm, as LeRobot sets them up for its evaluations.

    env = MetaWorld("reach-v3")
    seen, info = env.reset(seed=0)
    seen, reward, terminated, truncated, info = env.step(action)

The protocol (LeRobot 0.6, `envs/metaworld.py`): goals and things are drawn anew in each episode.
The goal is observed. There are 80 control steps per second, and at most 500. The first step with
success ends the episode. An action is (4,) in [-1, 1]: dx, dy, dz in steps of 1 cm, and the
effort of the gripper. What is seen:

    state   (4,) float32: the hand's x, y, z (m), and the opening of the gripper in 0..1
    things  (2, 3) float32: where the first thing is, and the second thing or, without one, the goal
    full    (39,) float32: Meta-World's own observation

`picture` draws what the camera sees, (side, side, 3) uint8, when it is asked for: an image takes
longer than several steps.

The camera is `corner2` at (0.75, 0.075, 0.7), turned by 180 degrees. The middle two thirds of its
image are kept, where things are and the hand works. The instructions are ours: other people's
sentences for these tasks are other words.
"""

import atexit
import functools
import warnings
import weakref

import numpy as np

from base import flags
from base.errors import UserError
from worlds.camera import close_if_alive, make_cheap, make_renderer, project
from worlds.table_model import load

# The groups of arXiv 2310.05905 (and of SmolVLA's table): name -> its group, what is to be done.
TASKS = {
    "button-press-v3": ("easy", "press the button in front of you"),
    "button-press-topdown-v3": ("easy", "press the button down"),
    "button-press-topdown-wall-v3": ("easy", "press the button down behind the wall"),
    "button-press-wall-v3": ("easy", "press the button in front of you past the wall"),
    "coffee-button-v3": ("easy", "start the coffee machine"),
    "dial-turn-v3": ("easy", "turn the dial"),
    "door-close-v3": ("easy", "close the door"),
    "door-lock-v3": ("easy", "lock the door"),
    "door-open-v3": ("easy", "open the door"),
    "door-unlock-v3": ("easy", "unlock the door"),
    "drawer-close-v3": ("easy", "close the drawer"),
    "drawer-open-v3": ("easy", "open the drawer"),
    "faucet-close-v3": ("easy", "close the faucet"),
    "faucet-open-v3": ("easy", "open the faucet"),
    "handle-press-v3": ("easy", "press the handle down"),
    "handle-press-side-v3": ("easy", "press the handle down from the side"),
    "handle-pull-v3": ("easy", "pull the handle up"),
    "handle-pull-side-v3": ("easy", "pull the handle up from the side"),
    "lever-pull-v3": ("easy", "pull the lever"),
    "plate-slide-v3": ("easy", "slide the plate into the goal"),
    "plate-slide-back-v3": ("easy", "slide the plate back out of the goal"),
    "plate-slide-back-side-v3": ("easy", "slide the plate back out of the goal to the side"),
    "plate-slide-side-v3": ("easy", "slide the plate into the goal at the side"),
    "reach-v3": ("easy", "move the hand to the mark"),
    "reach-wall-v3": ("easy", "move the hand to the mark behind the wall"),
    "window-close-v3": ("easy", "close the window"),
    "window-open-v3": ("easy", "open the window"),
    "peg-unplug-side-v3": ("easy", "pull the peg out of the box"),
    "basketball-v3": ("medium", "put the ball through the hoop"),
    "bin-picking-v3": ("medium", "carry the cube from its bin to the other bin"),
    "box-close-v3": ("medium", "put the lid on the box"),
    "coffee-pull-v3": ("medium", "take the mug away from the coffee machine"),
    "coffee-push-v3": ("medium", "bring the mug to the coffee machine"),
    "hammer-v3": ("medium", "drive the nail in with the hammer"),
    "peg-insert-side-v3": ("medium", "put the peg into the hole of the box"),
    "push-wall-v3": ("medium", "push the puck around the wall to the mark"),
    "soccer-v3": ("medium", "push the ball into the net"),
    "sweep-v3": ("medium", "sweep the cube to the edge of the table"),
    "sweep-into-v3": ("medium", "sweep the cube into the hole of the table"),
    "assembly-v3": ("hard", "put the ring on the post"),
    "hand-insert-v3": ("hard", "put the cube down into the hole"),
    "pick-out-of-hole-v3": ("hard", "lift the puck out of the hole to the mark"),
    "pick-place-v3": ("hard", "lift the puck to the mark"),
    "push-v3": ("hard", "push the puck to the mark"),
    "push-back-v3": ("hard", "pull the puck back to the mark"),
    "shelf-place-v3": ("very_hard", "put the cube on the shelf"),
    "disassemble-v3": ("very_hard", "take the ring off the post"),
    "stick-pull-v3": ("very_hard", "pull the jug with the stick"),
    "stick-push-v3": ("very_hard", "push the jug with the stick"),
    "pick-place-wall-v3": ("very_hard", "lift the puck over the wall to the mark"),
}
GROUPS = ("easy", "medium", "hard", "very_hard")
# A first look at all kinds: seven easy tasks, a medium and two hard tasks.
TEN = (
    *("reach-v3", "door-open-v3", "drawer-open-v3", "drawer-close-v3"),
    *("window-open-v3", "window-close-v3", "button-press-topdown-v3"),
    *("peg-insert-side-v3", "push-v3", "pick-place-v3"),
)
STEPS = 500  # of an episode
FPS = 80
CAMERA = "corner2"
PLACE = (0.75, 0.075, 0.7)  # metres: where LeRobot puts this camera
KEPT = 2 / 3  # share of the image's side that is kept, around its middle
SECOND = slice(11, 14)  # of the full observation: the place of a second thing, or zeros


def tasks_of(names: str) -> list[str]:
    """Tasks from names with commas between them: tasks, groups, `ten` or `all`."""
    found: list[str] = []
    for name in names.split(","):
        many = {"ten": list(TEN), "all": list(TASKS)}
        many |= {group: [task for task in TASKS if TASKS[task][0] == group] for group in GROUPS}
        if name not in (*many, *TASKS):
            raise flags.unknown(f"the tasks {names}", name, [*many, *TASKS])
        found += many.get(name, [name])
    return list(dict.fromkeys(found))


class MetaWorld:
    """A task of Meta-World, with the interface of Gymnasium. Raises UserError for another task.

    image_size: pixels of an image's side, if `picture` is not told another; OpenGL is needed by the
    first image only.
    """

    def __init__(self, task: str, image_size: int | None = None):
        tasks_of(task)
        self.mujoco = load("mujoco")
        self.task, self.image_size = task, image_size
        self.group, self.text = TASKS[task]
        env = environment_class(task)()
        # As MT1 sets it up: the goal is observed. As LeRobot does: drawn anew, from the seed.
        env._partially_observable = False
        vars(env).pop("sawyer_observation_space", None)  # its cache hides the goal
        env._set_task_called = True
        env._freeze_rand_vec = False
        env.seeded_rand_vec = True
        self.env, self.model, self.data = env, env.model, env.data
        self.renderers: dict = {}  # by side
        self.model.camera(CAMERA).pos[:] = PLACE
        # Four samples per pixel and shadows cost eight times the time.
        self.model.vis.quality.offsamples = 0
        self.model.vis.quality.shadowsize = 0
        self.steps, self.ever, self.full = 0, False, np.zeros(39)

    def reset(self, *, seed: int):
        """Begin an episode: (seen, info)."""
        # The seed of Meta-World's own `reset` is ignored.
        self.env.seed(seed)
        self.full, _ = self.env.reset()
        self.steps, self.ever = 0, False
        return self.seen(), self.info()

    def step(self, action):
        """One control step. Raises UserError for an action of another shape, or with NaN."""
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (4,) or not np.isfinite(action).all():
            raise UserError(
                f"the action {action.tolist()}", "four finite numbers", "check what made it"
            )
        self.full, reward, _, _, said = self.env.step(np.clip(action, -1, 1))
        self.steps += 1
        self.ever = self.ever or bool(said["success"])
        return self.seen(), float(reward), self.ever, self.steps >= STEPS, self.info()

    def info(self) -> dict:
        return {"done": self.ever, "ever": self.ever, "text": self.text}

    def things(self) -> np.ndarray:
        """The first thing's place, and the second thing's or the goal's: (2, 3) float32, metres."""
        second = self.full[SECOND] if self.has_second() else self.full[-3:]
        return np.stack([self.full[4:7], second]).astype(np.float32)

    def has_second(self) -> bool:
        """Whether there is a second thing: a nail, or a jug beside a stick."""
        return bool(np.any(self.full[SECOND]))

    def seen(self) -> dict[str, np.ndarray]:
        """What a policy may see: the docstring of this module says its parts."""
        return {
            "state": self.full[:4].astype(np.float32),
            "things": self.things(),
            "full": self.full.astype(np.float32),
        }

    # --- images --------------------------------------------------------------------------------

    def picture(self, side: int | None = None) -> np.ndarray:
        """What the camera sees: (side, side, 3) uint8; side: `image_size`, unless it is told.

        Raises UserError without a side, or without OpenGL.
        """
        side = side or self.image_size
        if side is None:
            raise UserError(
                "Meta-World without images", "an image size", "give MetaWorld an image_size"
            )
        if side not in self.renderers:
            self.renderers[side] = make_renderer(self.model, round(side / KEPT))
            # After the context, so that Python runs it before MuJoCo's own exit ends OpenGL.
            atexit.register(close_if_alive, weakref.ref(self))
        renderer = self.renderers[side]
        renderer.update_scene(self.data, CAMERA)
        make_cheap(self.mujoco, renderer.scene)
        image = renderer.render()[::-1, ::-1]
        first = (len(image) - side) // 2
        middle = slice(first, first + side)
        return image[middle, middle].copy()

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Where the image shows points (n, 3), in metres: (n, 2), as shares of its side."""
        turned = 1 - project(self.model, self.data, CAMERA, points)
        return 0.5 + (turned - 0.5) / KEPT

    def close(self) -> None:
        for renderer in self.renderers.values():
            renderer.close()
        self.renderers.clear()


@functools.cache
def environment_class(task: str):
    load("metaworld")
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    return ALL_V3_ENVIRONMENTS[task]


# --- the expert ----------------------------------------------------------------------------------

NOISE = (0.0, 0.3)  # standard deviation of a disturbed action, of the largest action; per episode
ENDS = 4  # steps after the first success
LONGEST = 250  # steps: an expert that needs longer has failed


def expert_of(task: str):
    """Meta-World's scripted policy of a task: a function from `full` to an action in [-1, 1]."""
    load("metaworld")
    from metaworld.policies import ENV_POLICY_MAP

    policy = ENV_POLICY_MAP[task]()

    def act(full: np.ndarray) -> np.ndarray:
        # Raw actions leave [-1, 1] in up to all steps: unclipped they would squeeze the scale.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says so itself, once per task
            action = policy.get_action(full.astype(np.float64))
        return np.clip(action, -1, 1).astype(np.float32)

    return act


def record(env: MetaWorld, rng: np.random.Generator, noise: bool = True) -> dict:
    """An episode of the expert, as arrays with one row per step.

    What is seen before the action; action (T, 4): what the expert wants; executed (T, 4): what was
    done, disturbed by a strength that is drawn per episode; done (T,) bool: after the action.
    """
    seen, _ = env.reset(seed=int(rng.integers(2**31)))
    act = expert_of(env.task)
    sigma = float(rng.uniform(*NOISE)) if noise else 0.0
    rows: dict[str, list] = {name: [] for name in (*seen, "action", "executed", "done")}
    after = 0
    while after < ENDS and env.steps < LONGEST:
        action = act(env.full)
        for name, value in seen.items():
            rows[name].append(value)
        if env.image_size is not None:
            rows.setdefault("image", []).append(env.picture())
        noisy = action + sigma * np.append(rng.standard_normal(3), 0.0)
        executed = np.clip(noisy, -1, 1).astype(np.float32)
        seen, _, _, _, info = env.step(executed)
        rows["action"].append(action)
        rows["executed"].append(executed)
        rows["done"].append(info["done"])
        after += info["done"]
    return {name: np.stack(values) for name, values in rows.items()}
