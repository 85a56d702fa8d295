"""Private: the words of the pages, in English and Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from airflow_imagetag.errors import ConfigurationError

DEFAULT_LANGUAGE = "en"

_WORDS: dict[str, tuple[str, str]] = {
    "title": ("Image labels", "图像标签"),
    "skip": ("Skip to the content", "跳到正文"),
    "stores": ("Stores", "标签库"),
    "store": ("Store", "标签库"),
    "overview": ("Overview", "概览"),
    "labels": ("Labels", "标签"),
    "gallery": ("Gallery", "图库"),
    "image": ("Image", "图像"),
    "runs": ("Runs", "运行"),
    "failures": ("Failures", "失败"),
    "images": ("Images", "图像"),
    "other_language": ("中文", "English"),
    "made_at": ("State of", "数据时间"),
    "estimate": (
        "Numbers with ≈ are estimates from a random sample of {images} images.",
        "带 ≈ 的数字由 {images} 张图像的随机样本估算。",
    ),
    "counts_estimate": (
        (
            "Numbers with ≈ are estimates from a random sample: the store is too large to be counted "
            "for a page."
        ),
        "带 ≈ 的数字为随机样本估算值：标签库太大，无法为页面逐一计数。",
    ),
    "status": ("Status", "状态"),
    "tagged": ("labelled", "已标注"),
    "failed": ("failed", "失败"),
    "waiting": ("waiting", "等待重试"),
    "gave_up": ("given up", "已放弃"),
    "unfinished": ("waiting", "等待重试"),
    "total": ("Total", "总计"),
    "api": ("Interface", "接口"),
    "labels_each": ("Labels an image", "每张图像的标签"),
    "by_day": ("Images by day", "每日图像数"),
    "cost_by_day": ("Cost by day", "每日费用"),
    "calls_by_day": ("Calls by day", "每日调用数"),
    "cost": ("Cost", "费用"),
    "calls": ("Calls", "调用"),
    "day": ("Day", "日期"),
    "waiting_text": (
        "Images that wait are tried again by a later run; see the failures for the reasons.",
        "等待中的图像将由之后的运行重试；原因见“失败”页。",
    ),
    "no_images": ("This store holds no images yet.", "此标签库中还没有图像。"),
    "no_match": ("No image meets these conditions.", "没有符合条件的图像。"),
    "whole_label": ("Label means the whole label.", "“标签”须填写完整的标签名。"),
    "did_you_mean": ("Did you mean:", "您要找的是否为："),
    "no_failures": ("No image failed.", "没有失败的图像。"),
    "no_runs": ("The store holds no runs.", "此标签库没有运行记录。"),
    "label": ("Label", "标签"),
    "share": ("Share of images", "图像占比"),
    "mean": ("Mean probability", "平均概率"),
    "probability": ("Probability", "概率"),
    "probabilities": ("Probabilities of all labels", "所有标签的概率分布"),
    "distribution": ("0 to 1", "0 到 1"),
    "together": ("Labels that occur together", "共同出现的标签"),
    "together_text": (
        (
            "Each cell is the share of the images with the label of the row that also have the label "
            "of the column."
        ),
        "单元格表示：具有该行标签的图像中，同时具有该列标签的比例。",
    ),
    "text": ("Key or label contains", "键或标签包含"),
    "from": ("Probability from", "概率从"),
    "to": ("up to and including", "到（含）"),
    "any": ("any", "全部"),
    "since": ("Since", "起始日期"),
    "until": ("Until", "截止日期"),
    "until_before": ("before", "之前"),
    "key": ("Key", "键"),
    "filter": ("Show", "显示"),
    "reset": ("Reset", "重置"),
    "next_page": ("Next page", "下一页"),
    "first_page": ("First page", "第一页"),
    "more_labels": ("and {count} more", "另有 {count} 个"),
    "cut": (
        (
            "The time for this page was over before it was full. Go on with the next page, or set "
            "further conditions."
        ),
        "本页查询时间已到，结果不完整。请继续下一页，或增加条件。",
    ),
    "order": (
        "Images are in the order of the digests of their keys, which is a random one.",
        "图像按键的摘要排序，即随机顺序。",
    ),
    "not_found": ("There is no such page.", "没有此页面。"),
    "not_found_image": ("The store does not hold this image.", "标签库中没有此图像。"),
    "uri": ("URI", "地址"),
    "version": ("Version", "版本"),
    "digest": ("SHA-256 of the bytes", "内容 SHA-256"),
    "history": ("History", "历史"),
    "labelled_at": ("Labelled", "标注时间"),
    "last_try": ("Last try", "最近一次尝试"),
    "first_failed": ("First failure", "首次失败"),
    "missing_since": ("Missing in the source since", "源中缺失起始"),
    "next_try": ("Next try", "下次重试"),
    "tries": ("Tries that failed", "失败次数"),
    "no_labels": ("The service found no labels.", "服务未返回标签。"),
    "category": ("Category", "类别"),
    "scene": ("Scene", "场景"),
    "original": ("Service's name", "服务原名"),
    "rank": ("Rank", "名次"),
    "error": ("Error", "错误"),
    "code": ("Code", "代码"),
    "message": ("Message", "消息"),
    "count": ("Images", "图像数"),
    "examples": ("Examples", "示例"),
    "first_failures": (
        "Only the first {count} images without labels are counted here.",
        "此处仅统计前 {count} 张未标注的图像。",
    ),
    "dag": ("DAG", "DAG"),
    "task": ("Task", "任务"),
    "run": ("Run", "运行"),
    "try": ("Try", "尝试"),
    "started": ("Started", "开始"),
    "ended": ("Ended", "结束"),
    "outcome": ("Outcome", "结果"),
    "run_success": ("success", "成功"),
    "run_failed": ("failed", "失败"),
    "run_running": ("running or killed", "运行中或已终止"),
    "run_interrupted": ("interrupted", "已中断"),
    "run_timed_out": ("timed out", "超时"),
    "run_out_of_budget": ("out of budget", "预算用尽"),
    "run_killed": ("killed", "已终止"),
    "reused": ("Reused", "复用"),
    "show_images": ("Images of this run", "此运行的图像"),
    "newest_runs": ("The newest {count} runs are shown.", "仅显示最近 {count} 次运行。"),
    "run_not_found": (
        "No store that this page shows has a record of this task in this run.",
        "此页面显示的标签库中没有该任务此次运行的记录。",
    ),
    "report_of": ("Report", "报告"),
    "report_made": ("Made", "生成时间"),
    "report_images": (
        (
            "{shown} of {total} images are shown: those with the smallest digests of their keys, which "
            "is a random choice."
        ),
        "显示 {total} 张图像中的 {shown} 张：按键的摘要选取，即随机选择。",
    ),
    "too_slow": (
        (
            "The store did not answer in time. Set fewer or other conditions: a label, a status or an "
            "interface narrows the search most."
        ),
        "标签库未及时响应。请更改条件：指定标签、状态或接口最能缩小范围。",
    ),
    "page_too_slow": (
        (
            "The store did not answer in time. Load this page again in a minute. If it stays so, the "
            "database is busy, or its statistics are old: run ANALYZE on the tables of the store."
        ),
        "标签库未及时响应。请一分钟后重新加载此页。若问题持续，则数据库繁忙或统计信息过旧：请对标签库的表运行 ANALYZE。",
    ),
    "not_read": ("The store cannot be read.", "无法读取标签库。"),
    "copying": (
        "This store is being read: {done}. The page loads again by itself.",
        "正在读取此标签库：{done}。页面将自动刷新。",
    ),
    "copied_images": ("{images} images so far", "已读取 {images} 张图像"),
    "copied_labels": (
        "the labels of {labelled} of {images} images",
        "已读取 {images} 张图像中 {labelled} 张的标签",
    ),
    "busy": ("The server is busy. Try again.", "服务器繁忙，请重试。"),
    "log_in": (
        "Log in to Airflow first, then load this page again.",
        "请先登录 Airflow，再重新加载此页。",
    ),
    "forbidden": ("Your role may not see this page.", "您的角色无权查看此页面。"),
    "open_airflow": ("Open Airflow", "打开 Airflow"),
    "bad_filter": ("A condition cannot be read: {name}.", "条件无法识别：{name}。"),
    "picture_no_uri": ("No picture: the store holds no URI", "无图片：标签库中没有地址"),
    "picture_url": ("No picture: this server fetches no URLs", "无图片：此服务器不下载 URL"),
    "picture_not_allowed": ("No picture: reading it is not allowed", "无图片：不允许读取"),
    "picture_not_read": ("No picture: it cannot be read", "无图片：无法读取"),
    "picture_not_decoded": ("No picture: it cannot be decoded", "无图片：无法解码"),
    "picture_too_large": ("No picture: it is too large", "无图片：图像过大"),
    "picture_busy": ("No picture: the server is busy", "无图片：服务器繁忙"),
    "picture_no_pillow": ("No picture: Pillow is not installed", "无图片：未安装 Pillow"),
    "picture_left_out": ("No picture: the file would be too large", "无图片：文件会过大"),
}

LANGUAGES: Mapping[str, Mapping[str, str]] = {
    language: MappingProxyType({name: words[place] for name, words in _WORDS.items()})
    for place, language in enumerate(("en", "zh"))
}
"""The words of each language, by name."""


def words_of(language: str) -> Mapping[str, str]:
    """Return the words of a language.

    :raises ConfigurationError: there are no pages in this language.
    """
    try:
        return LANGUAGES[language]
    except KeyError:
        names = " or ".join(map(repr, LANGUAGES))
        raise ConfigurationError(f"language must be {names}, not {language!r}.") from None


def preferred_language(header: str) -> str:
    """Return the language that a browser prefers.

    :param header: the header Accept-Language.
    """
    for part in header[:200].lower().split(","):
        language = part.strip()[:2]
        if language in LANGUAGES:
            return language
    return DEFAULT_LANGUAGE
