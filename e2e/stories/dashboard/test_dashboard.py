"""The dashboard in a real browser, over real runs, experiments, models and notebooks."""

import json
import shutil
import re
import subprocess
from pathlib import Path

import kfp
import pytest
from playwright.sync_api import expect, sync_playwright

import browser as look
import pipelines

pytestmark = pytest.mark.skipif(
    not look.CHROMIUM.exists(), reason=f"there is no chromium at {look.CHROMIUM} (Debian: apt-get install chromium; or set CHROMIUM)"
)

MODEL = Path(__file__).resolve().parents[3] / "services/modelserver/tests/fixtures"
MINUTES = 120_000
expect.set_options(timeout=20_000)

EXPERIMENT = {
    "apiVersion": "kubeflow.org/v1beta1",
    "kind": "Experiment",
    "metadata": {"name": "curve", "namespace": "default"},
    "spec": {
        "objective": {"type": "minimize", "objectiveMetricName": "loss"},
        "algorithm": {"algorithmName": "grid"},
        "maxTrialCount": 4,
        "parallelTrialCount": 2,
        "parameters": [
            {"name": "x", "parameterType": "int", "feasibleSpace": {"min": "1", "max": "4"}},
            {"name": "kind", "parameterType": "categorical", "feasibleSpace": {"list": ["plain"]}},
        ],
        "trialTemplate": {
            "primaryContainerName": "main",
            "trialParameters": [{"name": "x", "reference": "x"}, {"name": "kind", "reference": "kind"}],
            "trialSpec": {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "spec": {
                    "backoffLimit": 0,
                    "template": {
                        "spec": {
                            "restartPolicy": "Never",
                            "containers": [
                                {
                                    "name": "main",
                                    "image": "busybox",
                                    "command": ["sh", "-c", "echo ${trialParameters.kind}; echo loss=0.${trialParameters.x}"],
                                }
                            ],
                        }
                    },
                },
            },
        },
    },
}

SERVICE = {
    "apiVersion": "serving.kserve.io/v1beta1",
    "kind": "InferenceService",
    "metadata": {"name": "iris", "namespace": "default"},
    "spec": {"predictor": {"model": {"modelFormat": {"name": "xgboost"}, "storageUri": f"file://{MODEL}/iris.json"}}},
}


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=str(look.CHROMIUM), args=look.FLAGS)
        yield running
        running.close()


@pytest.fixture
def tab(chromium, ferroflow):
    one = look.Tab(chromium, ferroflow.url)
    yield one
    one.close()


@pytest.fixture(scope="module")
def client(ferroflow):
    return kfp.Client(host=ferroflow.url)


def apply(ferroflow, resource):
    command = ferroflow.kubectl_command("apply", "-f", "-")
    subprocess.run(command, input=json.dumps(resource), text=True, check=True, capture_output=True, timeout=60)


def badge(page):
    return page.locator("main header .badge").first


def test_an_empty_home_tells_how_to_start(tab):
    page = tab.open("/")
    expect(page.get_by_role("heading", name="No runs yet")).to_be_visible()
    expect(page.get_by_text(f'kfp.Client(host="{tab.url}")')).to_be_visible()
    expect(page.get_by_label("Namespace")).to_have_value("default")


def test_a_run_is_watched_live(tab, client):
    run = client.create_run_from_pipeline_func(pipelines.three_steps, arguments={"rows": 8}, run_name="watched", enable_caching=False)
    page = tab.open(f"/runs/{run.run_id}")
    expect(page.get_by_role("heading", name="watched")).to_be_visible()
    step = page.get_by_test_id("task-make")
    expect(step).to_contain_text("running", timeout=MINUTES)
    expect(page.get_by_test_id("task-tell")).to_contain_text("pending")
    step.click()
    expect(page.get_by_test_id("log")).to_contain_text("made row 1")
    expect(page.get_by_test_id("task-tell")).to_contain_text("succeeded", timeout=MINUTES)
    expect(badge(page)).to_have_text("succeeded")
    expect(page.get_by_test_id("log")).to_contain_text("made row 7")

    page.get_by_role("tab", name="Outputs").click()
    panel = page.get_by_role("tabpanel")
    expect(panel).to_contain_text("all made")
    expect(panel).to_contain_text("Dataset")
    expect(panel).to_contain_text("s3://")

    # a step is chosen, and its tabs are changed, by keyboard alone
    page.get_by_test_id("task-measure").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="measure")).to_be_visible()
    page.get_by_role("tab", name="Log").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Inputs")).to_be_focused()
    panel.get_by_role("button", name="make").click()
    expect(page.get_by_role("heading", name="make")).to_be_visible()

    page.get_by_role("button", name="Close the step").click()
    details = page.get_by_role("region", name="Details")
    expect(details).to_contain_text("a note")
    expect(details.get_by_role("row", name=re.compile("total"))).to_contain_text("28")
    expect(page.get_by_role("region", name="Timeline").get_by_role("listitem")).to_have_count(3)


def test_a_failed_run_says_why(tab, client):
    run = client.create_run_from_pipeline_func(pipelines.one_failure, arguments={}, run_name="failing", enable_caching=False)
    page = tab.open(f"/runs/{run.run_id}")
    expect(badge(page)).to_have_text("failed", timeout=MINUTES)
    expect(page.get_by_role("alert")).to_contain_text("this step cannot work")
    expect(page.get_by_role("button", name="Retry")).to_be_enabled()
    page.get_by_role("region", name="Details").get_by_role("button", name="broken").click()
    expect(page.get_by_test_id("log")).to_contain_text("ValueError: this step cannot work")


def test_runs_are_listed_and_found(tab):
    page = tab.open("/runs")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("failing")
    page.get_by_label("Find runs by name").fill("watch")
    expect(rows).to_have_count(1)
    page.get_by_role("link", name="watched").click()
    expect(page.get_by_test_id("graph")).to_be_visible()


def test_an_experiment_has_its_plot(tab, ferroflow):
    apply(ferroflow, EXPERIMENT)
    page = tab.open("/experiments")
    page.get_by_role("link", name="curve").click()
    expect(badge(page)).to_have_text("succeeded", timeout=MINUTES)
    plot = page.get_by_role("img", name="Parallel coordinates of 4 trials")
    expect(plot).to_be_visible()
    page.wait_for_function(f"() => ({look.PAINTED})() > 1000")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(4)
    expect(rows.first).to_contain_text("best")
    expect(rows.first).to_contain_text("0.1")
    expect(page.get_by_role("region", name="Summary")).to_contain_text("0.1")


def test_a_model_is_tried(tab, ferroflow):
    # a Pod's /tmp is its own, and the repository may be there; the data folder is not
    model = shutil.copy(MODEL / "iris.json", ferroflow.folder)
    SERVICE["spec"]["predictor"]["model"]["storageUri"] = f"file://{model}"
    apply(ferroflow, SERVICE)
    expected = json.loads((MODEL / "iris.expected.json").read_text())
    page = tab.open("/models")
    page.get_by_role("link", name="iris").click()
    expect(badge(page)).to_have_text("ready", timeout=MINUTES)
    rows = page.get_by_label("One row a line")
    expect(rows).to_have_value("0, 0, 0, 0")
    rows.fill("1, x")
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("alert")).to_have_text('row 1: "x" is no number')
    rows.fill("\n".join(", ".join(str(value) for value in row) for row in expected["instances"][:2]))
    page.get_by_role("button", name="Predict").click()
    bars = page.get_by_test_id("output").locator(".bar")
    expect(bars).to_have_count(6)
    shown = [float(one.get_attribute("title").split(": ")[1]) for one in bars.all()]
    assert shown == pytest.approx([value for row in expected["predictions"][:2] for value in row], abs=1e-6)


def test_notebooks_are_made_stopped_and_deleted(tab):
    page = tab.open("/notebooks")
    page.get_by_label("Name of the notebook").fill("notes")
    page.get_by_role("button", name="New notebook").click()
    row = page.get_by_role("listitem").filter(has_text="notes")
    expect(row).to_contain_text("jupyter-scipy")
    row.get_by_role("button", name="Stop").click()
    expect(row).to_contain_text("stopped")
    page.on("dialog", lambda dialog: dialog.accept())
    row.get_by_role("button", name="Delete").click()
    expect(row).to_have_count(0)


def test_an_unknown_page_says_so(tab):
    expect(tab.open("/nowhere").get_by_role("heading", name="No such page")).to_be_visible()


def test_an_unknown_run_says_so(chromium, ferroflow):
    tab = look.Tab(chromium, ferroflow.url)
    expect(tab.open("/runs/none").get_by_role("alert")).to_contain_text("none")
    tab.context.close()  # the browser tells of each answer 404


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_every_page_fits_and_can_be_read(chromium, ferroflow, client, width, theme):
    runs = {run.display_name: run.run_id for run in client.list_runs().runs}
    pages = {
        "home": "/",
        "runs": "/runs",
        "run": f"/runs/{runs['watched']}?step=root/measure",
        "failed": f"/runs/{runs['failing']}",
        "experiments": "/experiments",
        "experiment": "/experiments/curve",
        "models": "/models",
        "model": "/models/iris",
        "notebooks": "/notebooks",
    }
    look.OUT.mkdir(parents=True, exist_ok=True)
    tab = look.Tab(chromium, ferroflow.url, width, theme)
    for name, path in pages.items():
        page = tab.open(path)
        expect(page.locator("main h1")).to_be_visible()
        expect(page.get_by_role("status")).to_have_count(0)
        page.screenshot(path=look.OUT / f"{name}-{width}-{theme}.png", full_page=True)
        assert page.evaluate(look.OVERFLOW) <= 0, name
        assert page.evaluate(look.LOW_CONTRAST) == [], name
        assert page.evaluate(look.UNNAMED) == [], name
    tab.close()


def test_text_that_is_too_faint_would_be_found(tab):
    page = tab.open("/")
    expect(page.locator(".tile").first).to_be_visible()
    page.add_style_tag(content=".faint { color: #aaa !important }")
    assert page.evaluate(look.LOW_CONTRAST) != []


def test_a_ferroflow_that_is_gone_is_told(chromium, ferroflow):
    tab = look.Tab(chromium, ferroflow.url)
    page = tab.open("/runs")
    expect(page.locator("tbody tr")).to_have_count(2)
    tab.context.set_offline(True)
    expect(page.get_by_role("alert").first).to_contain_text("Ferroflow does not answer")
    expect(page.locator("tbody tr")).to_have_count(2)
    tab.context.set_offline(False)
    expect(page.get_by_role("alert")).to_have_count(0)
    tab.context.close()  # it complained rightly


def test_the_theme_is_kept(tab):
    page = tab.open("/")
    page.get_by_role("button", name="Use the dark theme").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
