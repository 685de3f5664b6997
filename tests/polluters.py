"""What a plugin can do to a process, as statements, each with the text of its error."""

SETTINGS = {
    "import torch; torch.set_default_dtype(torch.float64)":
        "torch.get_default_dtype() went from torch.float32 to torch.float64",
    "import torch; torch.set_flush_denormal(True)":
        "flushing of denormal numbers went from False to True",
    "import torch; torch.set_num_threads(torch.get_num_threads() + 1)":
        "torch.get_num_threads() went from",
    "import torch; torch.set_grad_enabled(False)": "torch.is_grad_enabled() went from True to",
    "import sys, torch; sys.mode = torch.inference_mode(); sys.mode.__enter__()":
        "torch.is_inference_mode_enabled() went from False to True",
    "import torch; torch.use_deterministic_algorithms(True)":
        "torch.get_deterministic_debug_mode() went from 0 to 2",
    "import torch; torch.use_deterministic_algorithms(True, warn_only=True)":
        "torch.get_deterministic_debug_mode() went from 0 to 1",
    "import torch; torch.set_float32_matmul_precision('medium')":
        "torch.get_float32_matmul_precision() went from highest to medium",
    "import torch; torch.backends.cudnn.benchmark = True":
        "torch.backends.cudnn.benchmark went from False to True",
    "import torch; torch.backends.cudnn.deterministic = True":
        "torch.backends.cudnn.deterministic went from False to True",
    "import torch; torch.backends.cuda.matmul.allow_tf32 = True":
        "torch.get_float32_matmul_precision() went from highest to high",
    "import torch; torch.backends.mkldnn.set_flags(False)":
        "torch.backends.mkldnn.enabled went from True to False",
    "import torch; torch.backends.cuda.enable_flash_sdp(False)":
        "torch.backends.cuda.flash_sdp_enabled() went from True to False",
    "import torch; torch.set_default_device('meta')":
        "torch.get_default_device() went from None to meta",
    "import torch; torch.set_autocast_enabled('cpu', True)":
        "torch.is_autocast_enabled('cpu') went from False to True",
    "import torch; torch.autocast('cpu', torch.float16).__enter__()":
        "depth of nested autocast went from 0 to 1",
    "import torch.nn.modules.module as m; m.register_module_forward_hook(lambda *a: None)":
        "torch's global forward hooks were changed",
    "import torch.nn.modules.module as m; m.register_module_parameter_registration_hook(print)":
        "torch's global parameter registration hooks were changed",
    "from torch.optim.optimizer import register_optimizer_step_pre_hook as r; r(print)":
        "torch's global optimizer pre hooks were changed",
    "from torch.overrides import TorchFunctionMode as M; M().__enter__()":
        "a torch function mode was entered and not left",
    "from torch.utils._python_dispatch import TorchDispatchMode as M; M().__enter__()":
        "a torch dispatch mode was entered and not left",
    "import numpy as np; np.seterr(all='raise')": "numpy.geterr() went from",
    "import sys, torch; sys.own = torch.library.Library('aten', 'IMPL')\n"
    "sys.own.impl('relu', lambda x: x + 5, 'CPU')":
        "operators of torch were replaced: aten/relu/CPU",
    "import ctypes; ctypes.PyDLL(None).fesetround(0x800)":
        "the processor's rounding (fegetround) went from 0 to 2048",
    "import torch; torch.backends.nnpack.set_flags(False)": "_get_nnpack_enabled() went from True",
    "import torch; torch.backends.mha.set_fastpath_enabled(False)":
        "torch.backends.mha.get_fastpath_enabled() went from True to False",
    "import torch; e = torch.backends.quantized; e.engine = e.supported_engines[0]":
        "",  # nothing where there is one
    "import torch; torch.autograd.set_multithreading_enabled(False)":
        "torch.autograd.is_multithreading_enabled() went from True to False",
    "import torch; torch.autograd.graph.saved_tensors_hooks(abs, abs).__enter__()":
        "torch.autograd.graph.saved_tensors_hooks went from None",
    "import torch; torch.__future__.set_swap_module_params_on_conversion(True)":
        "torch.__future__.get_swap_module_params_on_conversion() went from False to True",
    "from torch.serialization import LoadEndianness, set_default_load_endianness as s\n"
    "s(LoadEndianness.BIG)": "torch.serialization.get_default_load_endianness() went from None",
    "import decimal; decimal.getcontext().prec = 3": "decimal.getcontext() went from",
}  # fmt: skip

CODE = {
    "import scipy.stats; scipy.stats.t.ppf = lambda *a, **k: 0.0":
        "scipy.stats.t.ppf was replaced",
    "import scipy.stats; scipy.stats.nct.a = 0.0": "scipy.stats.nct.a was replaced",
    "from torch import nn; nn.Linear.forward = lambda self, x: x":
        "torch.nn.modules.linear.Linear.forward was replaced",
    "from torch import nn; nn.ReLU.__call__ = lambda self, x: x": "ReLU.__call__ was replaced",
    "from torch import nn; nn.Module.train = lambda self, mode=True: self":
        "torch.nn.modules.module.Module.train was replaced",
    "from torch import nn; nn.BatchNorm2d = nn.Identity": "torch.nn.BatchNorm2d was replaced",
    "import torch.nn.functional as F; F.cross_entropy = F.nll_loss":
        "torch.nn.functional.cross_entropy was replaced",
    "import torch.nn.functional as F; F.relu = lambda x, inplace=False: x":
        "torch.nn.functional.relu was replaced",
    "import torch.nn.functional as F; F.layer_norm.__defaults__ = (None, None, 1.0)":
        "the code or the defaults of torch.nn.functional.layer_norm were replaced",
    "import torch.nn.functional as F; F.sum = max": "torch.nn.functional.sum was replaced",
    "import torch; torch.relu = torch.sigmoid": "torch.relu was replaced",
    "import torch; torch.manual_seed = print": "torch.manual_seed was replaced",
    "import torch; torch.Tensor.mean = torch.Tensor.sum": "torch.Tensor.mean was replaced",
    "import torch; torch.optim.AdamW.step = lambda self: None": "adamw.AdamW.step was replaced",
    "import torch; torch.nn.init.kaiming_normal_ = torch.nn.init.zeros_":
        "torch.nn.init.kaiming_normal_ was replaced",
    "import torch; del torch.nn.functional.gelu": "torch.nn.functional.gelu was replaced",
    "import functools, torch.nn.functional as F\n"
    "F.cross_entropy = functools.partial(F.cross_entropy, label_smoothing=0.1)":
        "torch.nn.functional.cross_entropy was replaced",
    "import functools, torch.nn.functional as F\nold = F.relu\n"
    "@functools.wraps(old)\ndef relu(x, inplace=False):\n    return -old(x)\nF.relu = relu":
        "torch.nn.functional.relu was replaced",
    "import numpy as np; np.mean = np.median": "numpy.mean was replaced",
    "import numpy as np; np.pi = 3": "numpy.pi was replaced",
    "import random; random.shuffle = print": "random.shuffle was replaced",
    "import pydantic; pydantic.BaseModel.model_dump = lambda self: {}":
        "pydantic.main.BaseModel.model_dump was replaced",
    "import pandas as pd; pd.DataFrame.to_csv = print": "DataFrame.to_csv was replaced",
    "import filelock; filelock.FileLock = print": "filelock.FileLock was replaced",
    "import matplotlib.figure as f; f.Figure.savefig = print": "Figure.savefig was replaced",
    "import ruamel.yaml as y; y.YAML.load = print": "ruamel.yaml.main.YAML.load was replaced",
    "import torch; torch.func.grad = print": "torch.func.grad was replaced",
    "import re; re.fullmatch = print": "re.fullmatch was replaced",
    "import builtins; builtins.sum = max": "builtins.sum was replaced",
    "import time; time.perf_counter = float": "time.perf_counter was replaced",
    "import timm; timm.layers.DropPath.forward = lambda self, x: 0 * x":
        "timm.layers.drop.DropPath.forward was replaced",
    "from timm.models import _registry; _registry._model_entrypoints['resnet18'] = print":
        "timm.models._registry._model_entrypoints.resnet18 was replaced",
    "import transferbench.training as t; t.learning_rate_factor = lambda *a: 1.0":
        "transferbench.training.learning_rate_factor was replaced",
    "import transferbench.training as t; t.PRECISIONS['f32'] = None":
        "PRECISIONS.f32 was replaced",
    "import transferbench.statistics as s; s.student_t = print":
        "transferbench.statistics.student_t was replaced",
}  # fmt: skip

GENERATORS = {
    "import torch; torch.manual_seed(0)": "the global generator of torch was moved",
    "import torch; torch.rand(1)": "the global generator of torch was moved",
    "import numpy as np; np.random.seed(0)": "the global generator of numpy.random was moved",
    "import numpy as np; np.random.rand()": "the global generator of numpy.random was moved",
    "import numpy as np; np.random.set_bit_generator(np.random.PCG64())":
        "the global generator of numpy.random was moved",
    "import random; random.seed(0)": "the global generator of random was moved",
    "import random, sys\nsys.modules[f'own{len(sys.modules)}'] = sys; random.seed(0)":
        "the global generator of random was moved",
}  # fmt: skip

SURROUNDINGS = {
    "import os; os.environ['OMP_NUM_THREADS'] = '7'": "os.environ['OMP_NUM_THREADS'] was set or",
    "import os; os.environ['CUBLAS_WORKSPACE_CONFIG'] = ':4096:8'": "'CUBLAS_WORKSPACE_CONFIG'",
    "import os; del os.environ['PATH']": "os.environ['PATH'] was set or removed",
    "import os; os.environ.clear()": "was set or removed",
    "import os; os.chdir('/')": "os.getcwd() went from",
    "import os; os.sched_setaffinity(0, {0})": "",  # nothing where there is one CPU
    "import sys; sys.path.reverse()": "folders of sys.path were removed or reordered",
    "import sys; sys.path.clear()": "folders of sys.path were removed or reordered",
    "import sys; sys.setrecursionlimit(99999)": "sys.getrecursionlimit() went from",
    "import io, sys; sys.stderr = io.StringIO()": "stdout or stderr was closed or replaced",
    "import gc; gc.disable()": "gc.isenabled() went from True to False",
    "import os; os.umask(0)": "the umask went from",
    "from resource import *; setrlimit(RLIMIT_NOFILE, (20, getrlimit(RLIMIT_NOFILE)[1]))":
        "limits of the process were lowered: RLIMIT_NOFILE",
    "import logging; logging.disable(logging.CRITICAL)":
        "the level of logging.disable() went from 0 to 50",
    "import tempfile; tempfile.tempdir = '/nowhere'": "tempfile.gettempdir() went from",
    "import sys; sys.setprofile(lambda *a: None)": "sys.getprofile() went from None",
    "import sys; sys.excepthook = print": "sys.excepthook went from",
    "import sys; sys.setswitchinterval(1)": "sys.getswitchinterval() went from",
    "import os, time; os.environ['TZ'] = 'Asia/Tokyo'; time.tzset()": "os.environ['TZ'] was set",
    "import warnings; warnings.simplefilter('ignore')": "warnings.filters were changed",
    "import warnings; warnings.resetwarnings()": "warnings.filters were changed",
    "import warnings; warnings.filterwarnings('error', category=UserWarning)":
        "warnings.filters were changed",
    "import locale; locale.setlocale(locale.LC_ALL, 'C.UTF-8')":
        "locale.setlocale(locale.LC_ALL) went from",
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)": "the handler of SIGTERM went",
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)": "the handler of SIGINT went",
    "import signal; signal.alarm(1000)": "a timer was left running (signal.alarm)",
    "import threading; threading.Thread(target=threading.Event().wait, name='endless', "
    "args=(0.3,)).start()": "a thread that is not a daemon was left running: endless",
}  # fmt: skip

ENDINGS = {
    "import os; os._exit(0)": "ExitRefusedError: os._exit(0) was called",
    "import os; os.abort()": "ExitRefusedError: os.abort() was called",
    "import os, signal; os.kill(os.getpid(), signal.SIGTERM)": "ExitRefusedError: os.kill(",
    "import os, signal; os.killpg(0, signal.SIGKILL)": "ExitRefusedError: os.killpg(0, ",
    "import signal; signal.raise_signal(signal.SIGTERM)": "ExitRefusedError: signal.raise_signal(",
    "import os; os.execv('/bin/true', ['true'])": "ExitRefusedError: os.execv('/bin/true', ",
    "import signal, time; signal.setitimer(signal.ITIMER_REAL, 0.01); time.sleep(5)":
        "ExitRefusedError: a timer (signal.alarm) went off",
    "import sys; sys.exit(0)": "SystemExit: 0",
    "raise SystemExit": "SystemExit",
    "raise KeyboardInterrupt": "raised KeyboardInterrupt",
    "raise GeneratorExit": "raised GeneratorExit",
    "raise BaseException": "raised BaseException",
    "raise StopIteration": "StopIteration",
    "import asyncio; raise asyncio.CancelledError": "raised CancelledError",
}  # fmt: skip

REGISTERED = """
from timm.models import register_model
def my_net(**_):
    pass
my_net.__module__ = "timm.models.resnet"
register_model(my_net)
"""

HARMLESS = [
    "from scipy.stats import chi2, t; t.fit([1, 2, 3, 5.0]); chi2(3).rvs(3, random_state=1)",
    "import torch\nwith torch.no_grad(), torch.autocast('cpu'), torch.device('meta'):\n    0",
    "import torch\nwith torch.random.fork_rng(devices=[]):\n    torch.manual_seed(0)",
    "import torch\nwith torch.backends.cudnn.flags(benchmark=True):\n    pass",
    "import torch\nwith torch.inference_mode(), torch.enable_grad():\n    pass",
    "import torch; torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1).step()",
    "import torch\nfor value in (True, False):\n    torch.backends.cuda.matmul.allow_tf32 = value",
    "import torch; torch.Generator().manual_seed(0)",
    "import torch; torch.Tensor.my_extension = lambda self: self",
    "import torch; torch.export; torch.fx; torch._dynamo",
    "import numpy as np\nwith np.errstate(all='raise'):\n    np.random.default_rng(0).normal()",
    "import random; random.Random(0).random()",
    "import random, sys\nsys.modules[f'own{len(sys.modules)}'] = sys; random.random()",
    "from torch.library import Library as L; own = L('own_operators', 'DEF')\n"  # noqa: ISC004  # two lines
    "own.define('double(Tensor x) -> Tensor'); own.impl('double', lambda x: 2 * x, 'CPU')",
    "from resource import *; setrlimit(RLIMIT_CORE, (getrlimit(RLIMIT_CORE)[1],) * 2)",
    "import decimal\nwith decimal.localcontext(prec=3):\n    1 / decimal.Decimal(3)",
    "import sklearn.linear_model, sklearn.neighbors, scipy.stats, scipy.optimize, pandas",
    "import matplotlib.pyplot, torchvision.transforms.functional, PIL.ImageFilter",
    "import timm; timm.list_models('resnet*')",
    REGISTERED,
    "import warnings\nwith warnings.catch_warnings():\n    warnings.simplefilter('ignore')",
    "import warnings\ntry:\n    warnings.warn('a')\nexcept UserWarning:\n    0",
    "import warnings; warnings.filterwarnings('ignore', module='mylib')",
    "import warnings; warnings.filterwarnings('ignore', category=DeprecationWarning)",
    "import os; os.environ['MY_LIBRARY_HOME'] = '/tmp'",
    "import os; os.environ['KMP_DUPLICATE_LIB_OK'] = 'True'",
    "import sys; sys.path.append('/somewhere')",
    "import sys; sys.path.insert(0, '/elsewhere')",
    "import os, tempfile, contextlib\nwith contextlib.chdir(tempfile.gettempdir()):\n    pass",
    "import concurrent.futures as f; f.ThreadPoolExecutor(1).submit(int).result()",
    "import threading; t = threading.Thread(target=int); t.start(); t.join()",
    "import subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)",
    "import os; os.kill(os.getpid(), 0)",
    "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()):\n    print()",
    "import gc; gc.collect()",
]
"""What plugins and the libraries they import may do."""

POLLUTERS = SETTINGS | CODE | GENERATORS | SURROUNDINGS
"""What changes the process, as opposed to ending it."""
