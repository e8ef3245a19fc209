"""The look of the page: colours and type as a Gradio theme, and what launch() needs to apply it.

Every text and background pair here keeps a contrast of at least 4.5 to 1, light and dark; the browser tests measure it.
"""

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.themes.utils import colors, fonts, sizes

ASSETS = Path(__file__).resolve().parents[2] / "assets"

# From the lightest to the darkest, as Gradio counts: 50, 100, 200 ... 900, 950.
IRIS = colors.Color("#f6f6ff", "#ecedfe", "#d9dbfd", "#b8baf8", "#9b9ef0", "#6e6ade", "#5b5bd6", "#4a48b8",
                    "#3a3894", "#272962", "#1b1c45", name="iris")
INK = colors.Color("#f7f8fb", "#eff0f5", "#e2e4ec", "#cdd0dc", "#9a9fb2", "#6b7084", "#515669", "#3b3f51",
                   "#262936", "#191b25", "#101218", name="ink")

HEAD = '<meta name="description" content="Fine-tune a language model on preference pairs, watch it learn, compare and share it.">'


def _theme() -> gr.themes.Base:
    """Our colours on Gradio's plain base. The fonts are files that Gradio ships, so nothing is fetched from elsewhere.

    Its semi-bold Plex lacks most letters (6.31), so bold stands in wherever 600 is asked for.
    """
    theme = gr.themes.Base(primary_hue=IRIS, secondary_hue=IRIS, neutral_hue=INK, radius_size=sizes.radius_md,
                           font=[fonts.LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"],
                           font_mono=[fonts.LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace"])
    theme.name = "orpo-studio"
    return theme.set(**_surfaces(), **_text(), **_inputs(), **_buttons())


def _surfaces() -> dict[str, str]:
    return _both(
        body_background_fill=("*neutral_50", "*neutral_950"),
        background_fill_primary=("white", "*neutral_900"),
        background_fill_secondary=("*neutral_50", "*neutral_950"),
        block_background_fill=("white", "*neutral_900"),
        block_border_color=("*neutral_200", "*neutral_800"),
        border_color_primary=("*neutral_200", "*neutral_800"),
        border_color_accent=("*primary_600", "*primary_400"),
        block_shadow=("0 1px 2px rgb(16 18 24 / 0.05)", "none"),
        panel_background_fill=("white", "*neutral_900"),
    ) | {"block_border_width": "1px", "block_radius": "12px", "container_radius": "12px", "layout_gap": "16px"}


def _text() -> dict[str, str]:
    return _both(
        body_text_color=("*neutral_900", "*neutral_100"),
        body_text_color_subdued=("*neutral_600", "*neutral_400"),
        block_info_text_color=("*neutral_600", "*neutral_400"),
        block_label_background_fill=("white", "*neutral_900"),
        block_label_text_color=("*neutral_700", "*neutral_300"),
        block_title_text_color=("*neutral_900", "*neutral_100"),
        accordion_text_color=("*neutral_900", "*neutral_100"),
        table_text_color=("*neutral_900", "*neutral_100"),
        link_text_color=("*primary_700", "*primary_300"),
        link_text_color_hover=("*primary_800", "*primary_200"),
        link_text_color_visited=("*primary_700", "*primary_300"),
        link_text_color_active=("*primary_800", "*primary_200"),
        color_accent_soft=("*primary_100", "*primary_900"),
        error_background_fill=("#fdecec", "*neutral_900"),
        error_text_color=("#a3162c", "#ff9aa6"),
        error_border_color=("#c9304a", "#ff9aa6"),
        error_icon_color=("#a3162c", "#ff9aa6"),
    ) | {"color_accent": "*primary_600", "block_title_text_weight": "600", "block_info_text_size": "*text_sm",
         "section_header_text_weight": "600"}


def _inputs() -> dict[str, str]:
    return _both(
        input_background_fill=("white", "*neutral_950"),
        # 3 to 1 against the page, so that the edge of a field is seen; WCAG asks it of controls.
        input_border_color=("#8a90a3", "#6b7084"),
        input_border_color_hover=("*neutral_600", "*neutral_400"),
        input_border_color_focus=("*primary_600", "*primary_400"),
        input_placeholder_color=("*neutral_500", "*neutral_400"),
        input_shadow_focus=("0 0 0 3px *primary_200", "0 0 0 3px *primary_800"),
        checkbox_background_color=("white", "*neutral_950"),
        checkbox_background_color_selected=("*primary_600", "*primary_600"),
        checkbox_border_color=("#8a90a3", "#6b7084"),
        checkbox_border_color_selected=("*primary_600", "*primary_400"),
        checkbox_border_color_focus=("*primary_600", "*primary_400"),
        checkbox_label_background_fill=("white", "*neutral_900"),
        checkbox_label_background_fill_hover=("*neutral_50", "*neutral_800"),
        checkbox_label_background_fill_selected=("*primary_100", "*primary_900"),
        checkbox_label_text_color_selected=("*primary_800", "*primary_100"),
        slider_color=("*primary_600", "*primary_400"),
    ) | {"input_border_width": "1px", "input_radius": "8px"}


def _buttons() -> dict[str, str]:
    return _both(
        button_primary_background_fill=("*primary_600", "*primary_600"),
        button_primary_background_fill_hover=("*primary_700", "*primary_500"),
        button_primary_text_color=("white", "white"),
        button_primary_border_color=("*primary_600", "*primary_600"),
        button_secondary_background_fill=("white", "*neutral_800"),
        button_secondary_background_fill_hover=("*neutral_100", "*neutral_700"),
        button_secondary_text_color=("*neutral_900", "*neutral_100"),
        button_secondary_border_color=("*neutral_300", "*neutral_700"),
        button_cancel_background_fill=("white", "*neutral_900"),
        button_cancel_background_fill_hover=("#fdecec", "#3a1820"),
        button_cancel_text_color=("#a3162c", "#ff9aa6"),
        button_cancel_text_color_hover=("#a3162c", "#ff9aa6"),
        button_cancel_border_color=("#d98793", "#8a3a48"),
    ) | {"button_border_width": "1px", "button_large_radius": "10px", "button_medium_radius": "8px",
         "button_small_radius": "8px", "button_large_text_weight": "600"}


def _both(**pairs: tuple[str, str]) -> dict[str, str]:
    """Gradio's two names for a variable, from one pair of light and dark."""
    return {name: light for name, (light, _) in pairs.items()} | {f"{name}_dark": dark for name, (_, dark) in pairs.items()}


THEME = _theme()


def launch_options() -> dict[str, Any]:
    """What demo.launch() needs for the look."""
    return {"theme": THEME, "css_paths": [ASSETS / "style.css"], "head": HEAD, "favicon_path": ASSETS / "favicon.svg"}
