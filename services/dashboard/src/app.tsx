import { Route, Routes } from "react-router";
import { Layout } from "./parts/layout";
import { Experiment } from "./pages/experiment";
import { Experiments } from "./pages/experiments";
import { Home } from "./pages/home";
import { Model } from "./pages/model";
import { Models } from "./pages/models";
import { Notebooks } from "./pages/notebooks";
import { Run } from "./pages/run";
import { Runs } from "./pages/runs";
import { Empty } from "./parts/states";

export function App() {
  return (
    <Layout>
      <Routes>
        <Route path="/" element={<Home />} />
        <Route path="/runs" element={<Runs />} />
        <Route path="/runs/:id" element={<Run />} />
        <Route path="/experiments" element={<Experiments />} />
        <Route path="/experiments/:name" element={<Experiment />} />
        <Route path="/models" element={<Models />} />
        <Route path="/models/:name" element={<Model />} />
        <Route path="/notebooks" element={<Notebooks />} />
        <Route path="*" element={<Empty title="No such page" text="The address may be mistyped." />} />
      </Routes>
    </Layout>
  );
}
